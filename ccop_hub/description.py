"""A summary of a set of weights: tensor counts, parameters, operations and how to load them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis

from .architectures import ResNetFPN
from .formats.checkpoint import Weights

FLOPS_SIDE = 224
"""Pixels of the square image that operations are counted for."""

_GROUPS = {
    "backbone.conv1": "stem",
    "backbone.bn1": "stem",
    "backbone.layer1": "res2",
    "backbone.layer2": "res3",
    "backbone.layer3": "res4",
    "backbone.layer4": "res5",
    "fpn.inner_blocks": "fpn lateral",
    "fpn.layer_blocks": "fpn output",
}


@dataclasses.dataclass(frozen=True)
class Group:
    """Tensors of one stage: its name, number of tensors, and number of trained parameters in them."""

    name: str
    tensors: int
    parameters: int


@dataclasses.dataclass(frozen=True)
class Description:
    """What `describe` finds.

    Attributes:
        groups: tensors by stage, in the order of the forward pass.
        parameters: number of trained parameters (BN statistics are not trained).
        flops: multiply-adds of one 224 x 224 image, as fvcore counts them, by part of the network.
        usage: the line of Python that loads the weights.
    """

    groups: tuple[Group, ...]
    parameters: int
    flops: dict[str, int]
    usage: str


def describe(weights: Weights) -> Description:
    """Count tensors, parameters and operations of weights."""
    tensors: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    for name, value in weights.tensors.items():
        group = _GROUPS.get(".".join(name.split(".")[:2]), "other")
        tensors[group] += 1
        if name.endswith((".weight", ".bias")):
            parameters[group] += value.numel()
    order = [*dict.fromkeys(_GROUPS.values()), "other"]
    groups = tuple(Group(name, tensors[name], parameters[name]) for name in order if tensors[name])
    return Description(groups, parameters.total(), _flops(weights), usage(weights))


def usage(weights: Weights) -> str:
    """The line of Python that loads the weights, with the pyramid where they have one."""
    function = "load_pyramid" if "fpn" in weights.parts else "load_backbone"
    return f'import ccop_hub; network = ccop_hub.{function}("{weights.arch}", weights="{weights.name}")'


def _flops(weights: Weights) -> dict[str, int]:
    network = ResNetFPN(weights.arch).eval()
    images = torch.zeros(1, 3, FLOPS_SIDE, FLOPS_SIDE)
    counts: dict[str, Any] = {"backbone": _counted(network.backbone, images)}
    if "fpn" in weights.parts:
        counts["backbone + fpn"] = _counted(network, images)
    return counts


def _counted(module: torch.nn.Module, images: torch.Tensor) -> int:
    analysis = FlopCountAnalysis(module, images)
    analysis.unsupported_ops_warnings(False)
    analysis.uncalled_modules_warnings(False)
    return int(analysis.total())
