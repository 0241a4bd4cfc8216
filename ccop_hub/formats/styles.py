"""Naming styles for the tensors of a ResNet and its pyramid, without the prefix used in a checkpoint.

`names.py` defines complete output formats; this module defines the parts needed to find a network in a file.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import cache

from ..plain_resnets import COUNTER, LAYOUTS, fpn_names
from .names import detectron2_module, detectron2_pyramid, mmdetection_pyramid

STATISTICS = ("running_mean", "running_var")


@dataclasses.dataclass(frozen=True)
class Style:
    """One way to name a backbone's tensors.

    Attributes:
        name: name in reports.
        stem: weight of the first convolution.
        first_stage: prefix of the first residual stage. Finding it along with `stem` marks a candidate network.
        owned: matches all names that belong to the backbone, valid or not; other names are heads.
        rename: maps a timm name to this style.
        elsewhere: alternative prefix of `res5`, relative to the backbone's parent.
    """

    name: str
    stem: str
    first_stage: str
    owned: re.Pattern[str]
    rename: Callable[[str], str]
    elsewhere: str = ""


def _sequential(name: str) -> str:
    """Numbered as in `nn.Sequential(*model.children())`: conv1 is 0, bn1 is 1, layer1 to layer4 are 4 to 7."""
    first, _, rest = name.partition(".")
    return f"{_CHILDREN[first]}.{rest}"


_CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
_CAFFE2_NORM = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv", COUNTER: "steps"}


def _caffe2(name: str) -> str:
    """Detectron's blob names: `conv1_w`, `res_conv1_bn_s`, `res2_0_branch2a_w`, `res2_0_branch1_bn_b`."""
    *path, tensor = name.split(".")
    if path == ["conv1"]:
        return "conv1_w"
    if path == ["bn1"]:
        return f"res_conv1_bn_{_CAFFE2_NORM[tensor]}"
    layer, block, *layers = path
    where = f"res{int(layer.removeprefix('layer')) + 1}_{block}"
    if layers[0] == "downsample":
        branch, is_norm = "branch1", layers[1] == "1"
    else:
        branch, is_norm = f"branch2{'abc'[int(layers[0][-1]) - 1]}", layers[0].startswith("bn")
    return f"{where}_{branch}_bn_{_CAFFE2_NORM[tensor]}" if is_norm else f"{where}_{branch}_w"


_TRANSFORMERS = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}


def _transformers(name: str) -> str:
    """Hugging Face transformers' `ResNetModel`."""
    *path, tensor = name.split(".")
    if len(path) == 1:
        return f"embedder.embedder.{_TRANSFORMERS[path[0].rstrip('1')]}.{tensor}"
    layer, block, *layers = path
    where = f"encoder.stages.{int(layer.removeprefix('layer')) - 1}.layers.{block}"
    if layers[0] == "downsample":
        return f"{where}.shortcut.{_TRANSFORMERS[layers[1]]}.{tensor}"
    return f"{where}.layer.{int(layers[0][-1]) - 1}.{_TRANSFORMERS[layers[0][:-1]]}.{tensor}"


PLAIN = Style("torchvision", "conv1.weight", "layer1.", re.compile(r"(conv1|bn1|layer[1-4])\."), lambda name: name)
DETECTRON2 = Style(
    "detectron2",
    "stem.conv1.weight",
    "res2.",
    re.compile(r"(stem\.conv1|res[2-5])\."),
    detectron2_module,
    elsewhere="roi_heads.",
)
SEQUENTIAL = Style("sequential", "0.weight", "4.0.conv", re.compile(r"[014-7]\."), _sequential)
CAFFE2 = Style("caffe2", "conv1_w", "res2_", re.compile(r"(conv1_|res_conv1_|res[2-5]_\d+_)"), _caffe2)
TRANSFORMERS = Style(
    "transformers",
    "embedder.embedder.convolution.weight",
    "encoder.stages.0.",
    re.compile(r"(embedder\.embedder|encoder\.stages)\."),
    _transformers,
)

STYLES = (PLAIN, DETECTRON2, SEQUENTIAL, CAFFE2, TRANSFORMERS)


@dataclasses.dataclass(frozen=True)
class PyramidStyle:
    """One way to name a pyramid's tensors.

    Attributes:
        owned: matches the names of the pyramid; group `level` is the level number, `tensor` the rest of the name.
        rename: maps a canonical name without `fpn.` to this style.
    """

    owned: re.Pattern[str]
    rename: Callable[[str], str]


PYRAMID_STYLES = (
    PyramidStyle(re.compile(r"fpn\.(inner|layer)_blocks\.(?P<level>\d+)\.(?P<tensor>.+)"), lambda name: f"fpn.{name}"),
    PyramidStyle(re.compile(r"neck\.(lateral|fpn)_convs\.(?P<level>\d+)\.(?P<tensor>.+)"), mmdetection_pyramid),
    PyramidStyle(re.compile(r"fpn_(lateral|output)(?P<level>\d+)\.(?P<tensor>.+)"), detectron2_pyramid),
)


@cache
def backbone_table(style: Style, layout: str) -> dict[str, str]:
    """Map the style's names to timm names for a plain ResNet."""
    return {style.rename(name): name for name in LAYOUTS[layout].backbone_names()}


@cache
def pyramid_table(style: PyramidStyle) -> dict[str, str]:
    """Map the style's names to canonical names without `fpn.`."""
    return {style.rename(name): name for name in fpn_names()}
