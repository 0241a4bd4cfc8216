"""Tensors and cost of the plain ResNets and their pyramid, computed without building a network or importing torch.

Covers the timm ResNets with the standard stem and shortcuts; all others have to be built by `architectures`.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cache

Shape = tuple[int, ...]

FPN_CHANNELS = 256
"""Channels of every pyramid level (Detectron2's `MODEL.FPN.OUT_CHANNELS`, which the authors use too)."""

HUB_ARCHITECTURES = ("resnet18", "resnet34", "resnet50", "resnet101")
"""Plain ResNets with an entry point in `hubconf.py` and with Detectron2 names."""

COUNTER = "num_batches_tracked"
"""Tensor of a batch norm that counts batches: the only one that is an integer and has no dimension."""

NORM_TENSORS = ("weight", "bias", "running_mean", "running_var", COUNTER)
"""Tensors of `torch.nn.BatchNorm2d`, in state-dict order."""

_STEM_CHANNELS = 64
_PYRAMID_LEVELS = 4
_NORM_COST = 2
"""Multiply-adds per value of a batch norm, as fvcore counts them."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A plain ResNet (He et al. 2016, table 1), wide ResNet or ResNeXt.

    Attributes:
        convolutions: convolutions per block: 2 (basic) or 3 (bottleneck).
        blocks: blocks per stage.
        width: channels of the 3x3 convolutions of the first stage; doubles with each stage.
        groups: groups of the 3x3 convolutions.
    """

    convolutions: int
    blocks: tuple[int, int, int, int]
    width: int = 64
    groups: int = 1

    def backbone_names(self) -> list[str]:
        """Return the canonical names of the backbone, without the `backbone.` prefix, in state-dict order."""
        return list(self.backbone_shapes())

    def backbone_shapes(self) -> dict[str, Shape]:
        """Return the shape of each tensor of the backbone, under the names of `backbone_names`."""
        shapes = {"conv1.weight": (_STEM_CHANNELS, 3, 7, 7), **_norm("bn1", _STEM_CHANNELS)}
        expansion = 4 if self.convolutions == 3 else 1
        inputs = _STEM_CHANNELS
        for stage, count in enumerate(self.blocks):
            inner, outputs = self.width << stage, (64 << stage) * expansion
            for block in range(count):
                path = f"layer{stage + 1}.{block}"
                for k, shape in enumerate(self._convolutions(inputs, inner, outputs), start=1):
                    shapes |= {f"{path}.conv{k}.weight": shape, **_norm(f"{path}.bn{k}", shape[0])}
                if block == 0 and (stage > 0 or self.convolutions == 3):
                    shapes[f"{path}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                    shapes |= _norm(f"{path}.downsample.1", outputs)
                inputs = outputs
        return shapes

    def _convolutions(self, inputs: int, inner: int, outputs: int) -> list[Shape]:
        if self.convolutions == 2:
            return [(inner, inputs, 3, 3), (outputs, inner, 3, 3)]
        return [(inner, inputs, 1, 1), (inner, inner // self.groups, 3, 3), (outputs, inner, 1, 1)]


PLAIN_RESNETS = {
    "resnet18": Layout(2, (2, 2, 2, 2)),
    "resnet34": Layout(2, (3, 4, 6, 3)),
    "resnet50": Layout(3, (3, 4, 6, 3)),
    "resnet101": Layout(3, (3, 4, 23, 3)),
    "resnet152": Layout(3, (3, 8, 36, 3)),
    "wide_resnet50_2": Layout(3, (3, 4, 6, 3), width=128),
    "resnext50_32x4d": Layout(3, (3, 4, 6, 3), width=128, groups=32),
    "wide_resnet101_2": Layout(3, (3, 4, 23, 3), width=128),
    "resnext101_32x4d": Layout(3, (3, 4, 23, 3), width=128, groups=32),
    "resnext101_32x8d": Layout(3, (3, 4, 23, 3), width=256, groups=32),
    "resnext101_64x4d": Layout(3, (3, 4, 23, 3), width=256, groups=64),
}
"""timm name -> layout. ResNets with the same blocks share their tensor names; the first of them is the narrowest."""

LAYOUTS = {name: layout for name, layout in PLAIN_RESNETS.items() if layout.width == 64}
"""The layouts that differ in their tensor names."""


def same_names(layout: str) -> tuple[str, ...]:
    """Return the plain ResNets with the tensor names of one of `LAYOUTS`, itself first."""
    own = PLAIN_RESNETS[layout]
    return tuple(
        name
        for name, other in PLAIN_RESNETS.items()
        if (other.convolutions, other.blocks) == (own.convolutions, own.blocks)
    )


def fpn_names() -> list[str]:
    """Return the canonical names of the pyramid, without the `fpn.` prefix, in state-dict order."""
    return list(fpn_shapes("resnet18"))


def fpn_shapes(arch: str) -> dict[str, Shape]:
    """Return the shape of each tensor of the pyramid of a plain ResNet, under the names of `fpn_names`."""
    expansion = 4 if PLAIN_RESNETS[arch].convolutions == 3 else 1
    shapes: dict[str, Shape] = {}
    for group, side in (("inner_blocks", 1), ("layer_blocks", 3)):
        for level in range(_PYRAMID_LEVELS):
            inputs = (64 << level) * expansion if group == "inner_blocks" else FPN_CHANNELS
            shapes[f"{group}.{level}.0.weight"] = (FPN_CHANNELS, inputs, side, side)
            shapes |= _norm(f"{group}.{level}.1", FPN_CHANNELS)
    return shapes


@cache
def canonical_shapes(arch: str, with_fpn: bool) -> dict[str, Shape]:
    """Return canonical name -> shape of a plain ResNet, with or without its pyramid, in state-dict order."""
    backbone = {f"backbone.{name}": shape for name, shape in PLAIN_RESNETS[arch].backbone_shapes().items()}
    return backbone | ({f"fpn.{name}": shape for name, shape in fpn_shapes(arch).items()} if with_fpn else {})


def multiply_adds(arch: str, side: int, with_fpn: bool) -> int:
    """Count the multiply-adds of a plain ResNet for one square image, as fvcore counts them.

    Counts convolutions, batch norms, and the backbone's global pooling or the pyramid's upsampling.

    Args:
        arch: one of `PLAIN_RESNETS`.
        side: side of the image in pixels, a multiple of 32.
        with_fpn: count the four stages and the pyramid, instead of the pooled features.
    """
    total = 0
    for name, shape in canonical_shapes(arch, with_fpn).items():
        cells = (side // _stride(arch, name)) ** 2
        if len(shape) == 4:
            total += math.prod(shape) * cells
        elif name.endswith(".weight"):
            total += _NORM_COST * shape[0] * cells
    if with_fpn:
        return total + sum(FPN_CHANNELS * (side // (4 << level)) ** 2 for level in range(_PYRAMID_LEVELS - 1))
    return total + fpn_shapes(arch)["inner_blocks.3.0.weight"][1] * (side // 32) ** 2


def _stride(arch: str, name: str) -> int:
    """Return the input pixels per cell of the output of a convolution, or of the norm after it."""
    part, *path = name.split(".")
    if part == "fpn":
        return 4 << int(path[1])
    if not path[0].startswith("layer"):
        return 2
    stage = int(path[0].removeprefix("layer"))
    is_before_stride = PLAIN_RESNETS[arch].convolutions == 3 and path[2] in ("conv1", "bn1")
    return 2 << (stage - 1 if is_before_stride and path[1] == "0" and stage > 1 else stage)


def _norm(path: str, channels: int) -> dict[str, Shape]:
    return {f"{path}.{tensor}": () if tensor == COUNTER else (channels,) for tensor in NORM_TENSORS}
