"""Activation checkpointing: free the activations inside each block, and recompute them in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ccop_hub.architectures import BackboneFPN, ResNetFPN


def checkpoint_activations(network: BackboneFPN) -> None:
    """Store only the inputs of a ResNet's residual blocks, or another network's stages, and of pyramid convolutions.

    Does not change parameter names, outputs, gradients or batch norm running statistics.
    """
    for block in (*_blocks(network), *network.fpn.inner_blocks, *network.fpn.layer_blocks):
        block.forward = partial(_checkpointed, block, block.forward)


def _blocks(network: BackboneFPN) -> list[nn.Module]:
    body = network.backbone
    if isinstance(network, ResNetFPN):
        return [block for stage in (body.layer1, body.layer2, body.layer3, body.layer4) for block in stage]
    groups = [module for module in body.children() if isinstance(module, nn.Sequential | nn.ModuleList)]
    return [part for group in groups for part in group if any(True for _ in part.parameters())]


def _checkpointed(block: nn.Module, forward: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _running_statistics_kept(block)

    outputs: Tensor = checkpoint(forward, inputs, use_reentrant=False, context_fn=contexts)
    return outputs


@contextmanager
def _running_statistics_kept(block: nn.Module) -> Iterator[None]:
    """Keep recomputation from updating batch norm running statistics a second time."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
