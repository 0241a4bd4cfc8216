"""Summarise a set of weights: tensor counts, parameters, FLOPs and how to load them."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from .formats.outline import Outline
from .notebook import summary_html
from .plain_resnets import PLAIN_RESNETS, multiply_adds
from .sources.summary import load_call

FLOPS_SIDE = 224
"""Side of the square input, in pixels, for which FLOPs are counted."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Last parts of the names of tensors that are not trained."""

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
    """One stage: its name, number of tensors, and number of trainable parameters."""

    name: str
    tensors: int
    parameters: int


@dataclasses.dataclass(frozen=True)
class Description:
    """Description of a set of weights.

    Attributes:
        name: the name that the caller used.
        backbone: timm name of the backbone.
        source: path or URL they were read from.
        digest: `sha256:` + hex digest of the file, or of the tensors if there is no file.
        format: naming scheme of the source, such as `torchvision` or `detectron2`.
        parts: `backbone`, and `fpn` if there is a pyramid.
        unused: source names of tensors in neither part.
        taken: location of the network in the file.
        others: other complete networks in the file, such as a key encoder.
        facts: metadata of the checkpoint: objective, data, input mean and std, ...
        groups: stages, in forward order.
        parameters: number of trainable parameters (excludes BN statistics).
        flops: multiply-adds for one 224 x 224 image, as counted by fvcore, for each part of the network.
        usage: line of Python that loads the weights.
    """

    name: str
    backbone: str
    source: str
    digest: str
    format: str
    parts: tuple[str, ...]
    unused: tuple[str, ...]
    taken: str
    others: tuple[str, ...]
    facts: Mapping[str, Any]
    groups: tuple[Group, ...]
    parameters: int
    flops: dict[str, int]
    usage: str

    def _repr_html_(self) -> str:
        rows = {
            "backbone": self.backbone,
            "digest": self.digest,
            "format": self.format,
            "parts": ", ".join(self.parts),
            "parameters": f"{self.parameters:,}",
            **{f"GFLOPs ({part})": f"{count / 1e9:.2f}" for part, count in self.flops.items()},
            "load": self.usage,
        }
        return summary_html(self.name, rows)


def describe(weights: Outline) -> Description:
    """Count the tensors, parameters and FLOPs of a set of weights."""
    tensors: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    for name, shape in weights.tensors.items():
        group = _group(name, weights.arch in PLAIN_RESNETS)
        tensors[group] += 1
        if not name.endswith(_STATISTICS):
            parameters[group] += math.prod(shape)
    order = [*dict.fromkeys([*_GROUPS.values(), *tensors, "other"])]
    return Description(
        name=weights.name,
        backbone=weights.arch,
        source=weights.source,
        digest=weights.digest,
        format=weights.format,
        parts=weights.parts,
        unused=weights.unused,
        taken=weights.taken,
        others=weights.others,
        facts=dict(weights.facts),
        groups=tuple(Group(name, tensors[name], parameters[name]) for name in order if tensors[name]),
        parameters=parameters.total(),
        flops=_flops(weights),
        usage=f"import ccop_hub; network = {load_call(weights, weights.name)}",
    )


def _group(name: str, is_plain: bool) -> str:
    """Return the stage of a tensor: for networks other than plain ResNets, timm's name of it, such as `stages.0`."""
    part, first, *rest = name.split(".")
    found = _GROUPS.get(f"{part}.{first}")
    if found is not None or is_plain:
        return found or "other"
    return f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first


def _flops(weights: Outline) -> dict[str, int]:
    parts = {"backbone": False} | ({"backbone + fpn": True} if "fpn" in weights.parts else {})
    if weights.arch in PLAIN_RESNETS:
        return {part: multiply_adds(weights.arch, FLOPS_SIDE, with_fpn) for part, with_fpn in parts.items()}
    import torch

    from .architectures import build_network

    network = build_network(weights.arch).eval()
    images = torch.zeros(1, 3, FLOPS_SIDE, FLOPS_SIDE)
    return {part: _counted(network if with_fpn else network.backbone, images) for part, with_fpn in parts.items()}


def _counted(module: Any, images: Any) -> int:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(module, images)
    analysis.unsupported_ops_warnings(False)
    analysis.uncalled_modules_warnings(False)
    return int(analysis.total())
