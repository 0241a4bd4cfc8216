"""Networks with weights in them: what `torch.hub` and Python callers load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from timm.models.resnet import ResNet
from torch import Tensor

from . import registry
from .architectures import ResNetFPN, build_backbone
from .errors import UserError
from .resolve import resolve

Source = str | Path | Mapping[str, Tensor]


def load_backbone(arch: str, weights: Source | None = None, seed: int = 0) -> ResNet:
    """A timm ResNet (`num_classes=0`) with weights, in eval mode.

    Args:
        arch: timm name, such as `resnet50`.
        weights: as `resolve` takes it; None means the registry's default for `arch`.
        seed: of `random` weights.

    Returns:
        A network that takes (N, 3, H, W) float RGB, normalised by the checkpoint's mean and std, and returns pooled
        (N, C) features; `forward_features` returns (N, C, H/32, W/32). Its `pretrained_cfg` states where the weights
        came from, with mean and std on the 0-1 scale as timm has them.
    """
    found = resolve(_or_default(weights, arch), arch, seed)
    backbone = build_backbone(arch)
    backbone.load_state_dict(found.part("backbone"))
    return backbone.eval()


def load_pyramid(arch: str, weights: Source | None = None, seed: int = 0) -> ResNetFPN:
    """A ResNet with its feature pyramid, with weights, in eval mode.

    Args:
        arch: timm name, such as `resnet50`.
        weights: as `resolve` takes it; None means the registry's default for `arch`. They must hold a pyramid.
        seed: of `random` weights.

    Returns:
        A network that takes (N, 3, H, W) float RGB, normalised, and returns `{"p2": (N, 256, H/4, W/4) .. "p6"}`; its
        `strides` and `channels` state both by level.

    Raises:
        UserError: the weights hold no pyramid, besides what `resolve` raises.
    """
    found = resolve(_or_default(weights, arch), arch, seed)
    if "fpn" not in found.parts:
        raise UserError(f"{found.name} holds no feature pyramid: load the backbone alone, or weights that have one")
    network = ResNetFPN(arch)
    network.load_state_dict(dict(found.tensors))
    return network.eval()


def _or_default(weights: Source | None, arch: str) -> Source:
    return registry.default_name(arch) if weights is None else weights
