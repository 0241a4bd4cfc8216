"""Load networks with weights, for `torch.hub` and Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, overload

import timm
from timm.models import FeatureListNet
from timm.models.resnet import ResNet
from torch import Tensor

from .architectures import ResNetFPN, build_backbone, uninitialised
from .errors import UserError
from .formats.checkpoint import Weights
from .formats.tensor_use import load_into
from .formats.timm_folder import pretrained_cfg
from .sources import registry
from .sources.resolve import resolve

Source = str | Path | Mapping[str, Tensor]

DEFAULT_BACKBONE = "resnet50"
"""The paper's backbone."""


@overload
def load(
    weights: Source | None = ...,
    *,
    backbone: str | None = ...,
    pyramid: Literal[True],
    features_only: Literal[False] = ...,
    seed: int = ...,
) -> ResNetFPN: ...


@overload
def load(
    weights: Source | None = ...,
    *,
    backbone: str | None = ...,
    pyramid: Literal[False] = ...,
    features_only: bool = ...,
    seed: int = ...,
) -> ResNet | FeatureListNet: ...


def load(
    weights: Source | None = None,
    *,
    backbone: str | None = None,
    pyramid: bool = False,
    features_only: bool = False,
    seed: int = 0,
) -> ResNet | FeatureListNet | ResNetFPN:
    """Load a network with its weights, in eval mode.

    Networks take (N, 3, H, W) float RGB images, normalised with the checkpoint's mean and std, which the backbone's
    `pretrained_cfg` contains on timm's 0-1 scale.

    Args:
        weights: name of published weights (`ccop-hub list`), file or folder, `hf-hub:ORG/NAME[@REVISION]`, https URL,
            state dict, or `random`. Default: the published weights for `backbone`.
        backbone: timm name of the backbone, `resnet50` if neither it nor `weights` is given. Required for `random`
            weights; other weights must match it if given.
        pyramid: load the feature pyramid (FPN) too; the weights must include one.
        features_only: return timm's feature extractor, which outputs the features of every stage.
        seed: seed of `random` weights.

    Returns:
        By default, a timm `ResNet` without classifier: pooled (N, C) features; `forward_features` returns
        (N, C, H/32, W/32). With `features_only`, a network that returns five feature maps, at strides 2, 4, 8, 16 and
        32, described by its `feature_info`. With `pyramid`, a `ResNetFPN` that returns `{"p2": (N, 256, H/4, W/4), ...,
        "p6": (N, 256, H/64, W/64)}`; its `strides` and `channels` map level names to strides and channels.

    Raises:
        UserError: the weights do not exist, are unreadable, belong to another backbone, or lack a pyramid.
    """
    if pyramid and features_only:
        raise UserError("pyramid and features_only cannot be combined: choose one")
    found = resolve(registry.default_name(backbone or DEFAULT_BACKBONE) if weights is None else weights, backbone, seed)
    if pyramid:
        with uninitialised():
            network = ResNetFPN(found.arch)
        load_into(network, found, ("backbone", "fpn"))
        _describe(network.backbone, found)
        return network.eval()
    body: ResNet | FeatureListNet
    with uninitialised():
        if features_only:
            body = timm.create_model(found.arch, pretrained=False, features_only=True)
        else:
            body = build_backbone(found.arch)
    load_into(body, found, ("backbone",), prefix="backbone.")
    _describe(body, found)
    return body.eval()


def load_backbone(
    arch: str, weights: Source | None = None, seed: int = 0, features_only: bool = False
) -> ResNet | FeatureListNet:
    """Call `load` for the timm backbone `arch`."""
    return load(weights, backbone=arch, features_only=features_only, seed=seed)


def load_pyramid(arch: str, weights: Source | None = None, seed: int = 0) -> ResNetFPN:
    """Call `load` for the timm backbone `arch` with its pyramid."""
    return load(weights, backbone=arch, pyramid=True, seed=seed)


def _describe(network: ResNet | FeatureListNet, weights: Weights) -> None:
    """Replace the metadata of timm's own weights with that of these weights."""
    network.pretrained_cfg = network.default_cfg = {"architecture": weights.arch, **pretrained_cfg(weights.facts)}
