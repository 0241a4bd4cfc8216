"""The entry points that `hubconf.py` offers to `torch.hub`."""

from __future__ import annotations

from torch import nn

from .architectures import BackboneFPN
from .loading import Source, load_backbone, load_pyramid
from .sources.resolve import RANDOM


def ccop_resnet10t(
    pretrained: bool = True, *, weights: Source | None = None, seed: int = 0, features_only: bool = False
) -> nn.Module:
    """ResNet-10-T backbone, pre-trained with CCOP on synthetic images by default, offline; see `ccop_resnet50`."""
    return load_backbone("resnet10t", _chosen(pretrained, weights), seed, features_only)


def ccop_resnet18(
    pretrained: bool = True, *, weights: Source | None = None, seed: int = 0, features_only: bool = False
) -> nn.Module:
    """ResNet-18 backbone; see `ccop_resnet50`. No published weights: pass `weights`."""
    return load_backbone("resnet18", _chosen(pretrained, weights), seed, features_only)


def ccop_resnet34(
    pretrained: bool = True, *, weights: Source | None = None, seed: int = 0, features_only: bool = False
) -> nn.Module:
    """ResNet-34 backbone; see `ccop_resnet50`. No published weights: pass `weights`."""
    return load_backbone("resnet34", _chosen(pretrained, weights), seed, features_only)


def ccop_resnet50(
    pretrained: bool = True, *, weights: Source | None = None, seed: int = 0, features_only: bool = False
) -> nn.Module:
    """ResNet-50 backbone, pre-trained with CCOP by default.

    Input: (N, 3, H, W) float RGB, normalised with mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225) on the 0-1
    scale. Output: pooled (N, 2048) features; `forward_features` gives (N, 2048, H/32, W/32).

    Args:
        pretrained: if False, return an untrained network, like weights="random".
        weights: registry name (`resnet50.ccop_coco_800ep`), file or folder, `hf-hub:ORG/NAME[@REVISION]`, https URL,
            state dict, or "random". Default: the registry's weights for this backbone.
        seed: seed of random weights.
        features_only: return timm's feature extractor instead: five feature maps, at strides 2, 4, 8, 16 and 32.

    Returns:
        A `timm.models.resnet.ResNet` without classifier, in eval mode.
    """
    return load_backbone("resnet50", _chosen(pretrained, weights), seed, features_only)


def ccop_resnet101(
    pretrained: bool = True, *, weights: Source | None = None, seed: int = 0, features_only: bool = False
) -> nn.Module:
    """ResNet-101 backbone; see `ccop_resnet50`. No published weights: pass `weights`."""
    return load_backbone("resnet101", _chosen(pretrained, weights), seed, features_only)


def ccop_resnet10t_fpn(pretrained: bool = True, *, weights: Source | None = None, seed: int = 0) -> BackboneFPN:
    """ResNet-10-T with feature pyramid; see `ccop_resnet50_fpn`. No published weights: pass `weights`."""
    return load_pyramid("resnet10t", _chosen(pretrained, weights), seed)


def ccop_resnet18_fpn(pretrained: bool = True, *, weights: Source | None = None, seed: int = 0) -> BackboneFPN:
    """ResNet-18 with feature pyramid; see `ccop_resnet50_fpn`. No published weights: pass `weights`."""
    return load_pyramid("resnet18", _chosen(pretrained, weights), seed)


def ccop_resnet34_fpn(pretrained: bool = True, *, weights: Source | None = None, seed: int = 0) -> BackboneFPN:
    """ResNet-34 with feature pyramid; see `ccop_resnet50_fpn`. No published weights: pass `weights`."""
    return load_pyramid("resnet34", _chosen(pretrained, weights), seed)


def ccop_resnet50_fpn(pretrained: bool = True, *, weights: Source | None = None, seed: int = 0) -> BackboneFPN:
    """ResNet-50 with feature pyramid, both pre-trained with CCOP by default.

    Takes the input and the arguments of `ccop_resnet50`; the weights must include a pyramid. Output: {"p2": (N, 256,
    H/4, W/4), ..., "p6": (N, 256, H/64, W/64)}; `strides` and `channels` map level names to strides and channels.

    Returns:
        A `ccop_hub.architectures.ResNetFPN` (a `BackboneFPN`), in eval mode.
    """
    return load_pyramid("resnet50", _chosen(pretrained, weights), seed)


def ccop_resnet101_fpn(pretrained: bool = True, *, weights: Source | None = None, seed: int = 0) -> BackboneFPN:
    """ResNet-101 with feature pyramid; see `ccop_resnet50_fpn`. No published weights: pass `weights`."""
    return load_pyramid("resnet101", _chosen(pretrained, weights), seed)


def _chosen(pretrained: bool, weights: Source | None) -> Source | None:
    return weights if pretrained or weights is not None else RANDOM
