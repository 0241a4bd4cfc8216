"""Networks with weights in them: what `torch.hub` and Python callers load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import timm
from timm.models import FeatureListNet
from timm.models.resnet import ResNet
from torch import Tensor

from .architectures import ResNetFPN, build_backbone
from .formats.checkpoint import Weights
from .formats.tensor_use import load_into
from .formats.timm_folder import pretrained_cfg
from .sources import registry
from .sources.resolve import resolve

Source = str | Path | Mapping[str, Tensor]


def load_backbone(
    arch: str, weights: Source | None = None, seed: int = 0, features_only: bool = False
) -> ResNet | FeatureListNet:
    """A timm ResNet (`num_classes=0`) with weights, in eval mode.

    Args:
        arch: timm name, such as `resnet50`.
        weights: as `resolve` takes it; None means the registry's default for `arch`.
        seed: of `random` weights.
        features_only: return timm's wrapper that gives the features of every stage instead.

    Returns:
        A network that takes (N, 3, H, W) float RGB, normalised by the checkpoint's mean and std, and returns pooled
        (N, C) features; `forward_features` returns (N, C, H/32, W/32). With `features_only` it returns a list of five
        features, strides 2, 4, 8, 16 and 32; its `feature_info` states channels and strides. Either way
        `pretrained_cfg` states mean and std, on the 0-1 scale as timm has them.
    """
    found = resolve(_or_default(weights, arch), arch, seed)
    if features_only:
        network: ResNet | FeatureListNet = timm.create_model(arch, pretrained=False, features_only=True)
    else:
        network = build_backbone(arch)
    load_into(network, found, ("backbone",), prefix="backbone.")
    _describe(network, found)
    return network.eval()


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
    network = ResNetFPN(arch)
    load_into(network, found, ("backbone", "fpn"))
    _describe(network.backbone, found)
    return network.eval()


def _describe(network: ResNet | FeatureListNet, weights: Weights) -> None:
    """Replace what timm says of its own weights for that architecture by what these are."""
    network.pretrained_cfg = network.default_cfg = {"architecture": weights.arch, **pretrained_cfg(weights.facts)}


def _or_default(weights: Source | None, arch: str) -> Source:
    return registry.default_name(arch) if weights is None else weights
