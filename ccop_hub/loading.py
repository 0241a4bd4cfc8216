"""Load networks with weights, for `torch.hub` and Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

import timm
from timm.models._features import FeatureGetterNet
from timm.models.resnet import ResNet
from torch import Tensor, nn

from .architectures import BackboneFPN, build_backbone, build_network, stage_indices, uninitialised
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
) -> BackboneFPN: ...


@overload
def load(
    weights: Source | None = ...,
    *,
    backbone: str | None = ...,
    pyramid: Literal[False] = ...,
    features_only: bool = ...,
    seed: int = ...,
) -> nn.Module: ...


def load(
    weights: Source | None = None,
    *,
    backbone: str | None = None,
    pyramid: bool = False,
    features_only: bool = False,
    seed: int = 0,
) -> nn.Module:
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
        By default, a timm network without classifier, such as a `ResNet`: pooled (N, C) features; `forward_features`
        returns (N, C, H/32, W/32). With `features_only`, a network that returns its feature maps, at
        strides 2, 4, 8, 16 and 32 for a ResNet, described by its `feature_info`. With `pyramid`, a `BackboneFPN` that
        returns `{"p2": (N, 256, H/4, W/4), ..., "p6": (N, 256, H/64, W/64)}`; its `strides` and `channels` map level
        names to strides and channels.

    Raises:
        UserError: the weights do not exist, are unreadable, belong to another backbone, or lack a pyramid.
    """
    if pyramid and features_only:
        raise UserError("pyramid and features_only cannot be combined: choose one")
    found = resolve(registry.default_name(backbone or DEFAULT_BACKBONE) if weights is None else weights, backbone, seed)
    if pyramid:
        with uninitialised():
            network = build_network(found.arch)
        load_into(network, found, ("backbone", "fpn"))
        _describe(network.backbone, found)
        return network.eval()
    with uninitialised():
        body = build_backbone(found.arch)
        is_resnet = isinstance(body, ResNet)
        if features_only and is_resnet:
            body = timm.create_model(found.arch, pretrained=False, features_only=True)
    load_into(body, found, ("backbone",), prefix="backbone.")
    if features_only and not is_resnet:
        body = FeatureGetterNet(body, out_indices=list(range(stage_indices(body)[-1] + 1)))
    _describe(body, found)
    backbone_alone: nn.Module = body.eval()
    return backbone_alone


def load_backbone(arch: str, weights: Source | None = None, seed: int = 0, features_only: bool = False) -> nn.Module:
    """Call `load` for the timm backbone `arch`."""
    return load(weights, backbone=arch, features_only=features_only, seed=seed)


def load_pyramid(arch: str, weights: Source | None = None, seed: int = 0) -> BackboneFPN:
    """Call `load` for the timm backbone `arch` with its pyramid."""
    return load(weights, backbone=arch, pyramid=True, seed=seed)


def _describe(network: Any, weights: Weights) -> None:
    """Replace the metadata of timm's own weights with that of these weights."""
    network.pretrained_cfg = network.default_cfg = {
        "architecture": weights.arch,
        **pretrained_cfg(weights.arch, weights.facts),
    }
