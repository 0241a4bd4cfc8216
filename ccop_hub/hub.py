"""The entry points that `hubconf.py` offers to `torch.hub`."""

from __future__ import annotations

from timm.models import FeatureListNet
from timm.models.resnet import ResNet

from .architectures import ResNetFPN
from .loading import Source, load_backbone, load_pyramid
from .sources.resolve import RANDOM


def ccop_resnet18(
    pretrained: bool = True, *, weights: Source | None = None, seed: int = 0, features_only: bool = False
) -> ResNet | FeatureListNet:
    """ResNet-18 backbone; arguments as of `ccop_resnet50`. No weights are published for it: name some."""
    return load_backbone("resnet18", _chosen(pretrained, weights), seed, features_only)


def ccop_resnet34(
    pretrained: bool = True, *, weights: Source | None = None, seed: int = 0, features_only: bool = False
) -> ResNet | FeatureListNet:
    """ResNet-34 backbone; arguments as of `ccop_resnet50`. No weights are published for it: name some."""
    return load_backbone("resnet34", _chosen(pretrained, weights), seed, features_only)


def ccop_resnet50(
    pretrained: bool = True, *, weights: Source | None = None, seed: int = 0, features_only: bool = False
) -> ResNet | FeatureListNet:
    """ResNet-50 backbone, pre-trained by CCOP unless other weights are named.

    Input: (N, 3, H, W) float RGB, normalised with mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225) on the 0-1
    scale. Output: pooled (N, 2048) features; `forward_features` gives (N, 2048, H/32, W/32).

    Args:
        pretrained: False means an untrained network, the same as weights="random".
        weights: a name of the registry (`resnet50.ccop_coco_800ep`), the path of a file or folder,
            `hf-hub:ORG/NAME[@REVISION]`, an https address, a state dict, or "random". None: the registry's default.
        seed: of random weights.
        features_only: return timm's wrapper that gives a list of five features, strides 2, 4, 8, 16 and 32, instead.

    Returns:
        A `timm.models.resnet.ResNet` without classifier, in eval mode.
    """
    return load_backbone("resnet50", _chosen(pretrained, weights), seed, features_only)


def ccop_resnet101(
    pretrained: bool = True, *, weights: Source | None = None, seed: int = 0, features_only: bool = False
) -> ResNet | FeatureListNet:
    """ResNet-101 backbone; arguments as of `ccop_resnet50`. No weights are published for it: name some."""
    return load_backbone("resnet101", _chosen(pretrained, weights), seed, features_only)


def ccop_resnet18_fpn(pretrained: bool = True, *, weights: Source | None = None, seed: int = 0) -> ResNetFPN:
    """ResNet-18 with feature pyramid; arguments and output as of `ccop_resnet50_fpn`. Name the weights."""
    return load_pyramid("resnet18", _chosen(pretrained, weights), seed)


def ccop_resnet34_fpn(pretrained: bool = True, *, weights: Source | None = None, seed: int = 0) -> ResNetFPN:
    """ResNet-34 with feature pyramid; arguments and output as of `ccop_resnet50_fpn`. Name the weights."""
    return load_pyramid("resnet34", _chosen(pretrained, weights), seed)


def ccop_resnet50_fpn(pretrained: bool = True, *, weights: Source | None = None, seed: int = 0) -> ResNetFPN:
    """ResNet-50 with its feature pyramid, both pre-trained by CCOP unless other weights are named.

    Input and arguments as of `ccop_resnet50`; the weights must hold a pyramid. Output: {"p2": (N, 256, H/4, W/4), ...,
    "p6": (N, 256, H/64, W/64)}; `strides` and `channels` state both by level.

    Returns:
        A `ccop_hub.architectures.ResNetFPN`, in eval mode.
    """
    return load_pyramid("resnet50", _chosen(pretrained, weights), seed)


def ccop_resnet101_fpn(pretrained: bool = True, *, weights: Source | None = None, seed: int = 0) -> ResNetFPN:
    """ResNet-101 with feature pyramid; arguments and output as of `ccop_resnet50_fpn`. Name the weights."""
    return load_pyramid("resnet101", _chosen(pretrained, weights), seed)


def _chosen(pretrained: bool, weights: Source | None) -> Source | None:
    return weights if pretrained or weights is not None else RANDOM
