"""Frozen networks: fully loaded, in eval mode, and verified to stay unchanged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .architectures import BackboneFPN, build_resnet_fpn
from .formats.checkpoint import Weights, tensors_digest
from .formats.tensor_use import TensorUse, load_into
from .normalization import PIXEL_MEAN, PIXEL_STD


def load_network(weights: Weights, parts: Sequence[str] = ("backbone",)) -> tuple[BackboneFPN, TensorUse]:
    """Build a network, load weights into it, and report which tensors were used.

    Args:
        weights: resolved weights.
        parts: parts to load (`backbone`, `fpn`); the rest keeps its initial values (seed 0).

    Raises:
        UserError: a part is missing, or its tensors do not match the network's exactly.
    """
    network = build_resnet_fpn(weights.arch, seed=0)
    return network, load_into(network, weights, parts)


class FrozenNetwork(nn.Module):
    """A `BackboneFPN` in eval mode, without gradients, with built-in input normalisation.

    Args:
        weights: resolved weights.
        parts: parts to load and use.

    Attributes:
        weights: the loaded weights.
        loaded: the loaded parts as text, e.g. `backbone+fpn`.
        tensors: which of the weights' tensors were used.
        network: the underlying network.
    """

    def __init__(self, weights: Weights, parts: Sequence[str] = ("backbone",)) -> None:
        super().__init__()
        self.weights, self.loaded = weights, "+".join(parts)
        network, self.tensors = load_network(weights, parts)
        self.network = network.requires_grad_(False)
        self.eval()
        input_facts = weights.facts.get("input") or {}
        mean, std = input_facts.get("mean", PIXEL_MEAN), input_facts.get("std", PIXEL_STD)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self._digest = self._current_digest()

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Stay in eval mode even if a parent module switches to train mode: BN statistics must not change."""
        return super().train(False)

    @torch.no_grad()
    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """Backbone stages `res2` .. `res5` of (N, 3, H, W) RGB images on the 0-255 scale."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return self.network.stages((images.float() - mean) / std)

    @torch.no_grad()
    def pyramid(self, images: Tensor) -> dict[str, Tensor]:
        """Pyramid levels `p2` .. `p6` of (N, 3, H, W) RGB images on the 0-255 scale."""
        return self.network.pyramid(self.stages(images))

    def pooled(self, images: Tensor) -> Tensor:
        """Average-pooled res5, (N, C) float32, of (N, 3, H, W) RGB images on the 0-255 scale."""
        return self.stages(images)["res5"].float().mean((2, 3))

    def verify(self) -> None:
        """Check that every tensor is bit-identical to its loaded value and every module is in eval mode.

        Raises:
            RuntimeError: the network changed, so the measurement is invalid; this is a bug.
        """
        if any(module.training for module in self.modules()) or self._current_digest() != self._digest:
            raise RuntimeError(f"the frozen network of {self.weights.name} changed during the evaluation")

    def _current_digest(self) -> str:
        return tensors_digest({key: value.cpu() for key, value in self.network.state_dict().items()})
