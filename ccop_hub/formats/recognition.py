"""Which format a checkpoint is in, told by its tensor names, and the network in it under canonical names.

A format is data: the name that gives it away, and which prefixes hold the backbone and the pyramid under which naming
scheme. What stands under no such prefix (projection heads, queues, key encoders, detector heads) is named as unused.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError, one_line
from .names import layout_of, to_canonical
from .tensor_checks import expected_tensors, find_arch, require_sound


@dataclasses.dataclass(frozen=True)
class Format:
    """One layout of a checkpoint.

    Attributes:
        name: short name, as reports print it.
        title: whose layout it is.
        markers: tensor names that are all there in this format and not in any format further up the list.
        scheme: naming scheme (`names.SCHEMES`) that `prefixes` lead to.
        prefixes: prefix in the file -> prefix in the scheme, first match wins; None leaves the tensor out.
        alone: recognised only where every tensor stands under one of the prefixes.
        pyramid_may_differ: people use other pyramids in this format than ours (four levels, norms, no biases); such a
            pyramid is named as unused.
    """

    name: str
    title: str
    markers: tuple[str, ...]
    scheme: str
    prefixes: Mapping[str, str | None]
    alone: bool = False
    pyramid_may_differ: bool = False

    def renamed(self, name: str) -> str | None:
        """The scheme's name of a tensor; None if it belongs neither to the backbone nor to the pyramid."""
        for source, target in self.prefixes.items():
            if name.startswith(source):
                return None if target is None else target + name.removeprefix(source)
        return None


_RESNET = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")


def _resnet_under(source: str, target: str = "") -> dict[str, str | None]:
    """A torchvision-named ResNet under a prefix; its classifier or projection head (`fc`) stays out."""
    return {source + part: target + part for part in _RESNET}


_NECK: dict[str, str | None] = {"neck.lateral_convs.": "neck.lateral_convs.", "neck.fpn_convs.": "neck.fpn_convs."}

FORMATS = (
    Format(
        "lightning",
        "a training checkpoint of this project",
        ("objective.query.network.backbone.conv1.weight",),
        "canonical",
        {"objective.query.network.": ""},
    ),
    Format(
        "ccop",
        "the CCOP authors' training checkpoint",
        ("backbone_q.bottom_up.stem.conv1.weight",),
        "detectron2",
        {"backbone_q.": "backbone."},
    ),
    Format(
        "detectron2",
        "Detectron2 with feature pyramid",
        ("backbone.bottom_up.stem.conv1.weight",),
        "detectron2",
        {"backbone.bottom_up.stem.fc.": None, "backbone.": "backbone."},
        pyramid_may_differ=True,
    ),
    Format(
        "detectron2-c4",
        "Detectron2 C4",
        ("backbone.stem.conv1.weight",),
        "detectron2-c4",
        {
            "backbone.stem.fc.": None,
            "backbone.": "backbone.",
            **{f"roi_heads.res5.{block}.": f"roi_heads.res5.{block}." for block in range(3)},
        },
    ),
    Format(
        "detectron2-backbone",
        "Detectron2 names of a converted backbone",
        ("stem.conv1.weight",),
        "detectron2",
        {
            "stem.fc.": None,
            "stem.": "backbone.bottom_up.stem.",
            **{f"res{stage}.": f"backbone.bottom_up.res{stage}." for stage in range(2, 6)},
            "fpn_lateral": "backbone.fpn_lateral",
            "fpn_output": "backbone.fpn_output",
        },
        pyramid_may_differ=True,
    ),
    Format(
        "slotcon",
        "SlotCon (its teacher, which its authors transfer)",
        ("encoder_k.conv1.weight", "grouping_k.slot_embed.weight"),
        "torchvision",
        _resnet_under("encoder_k."),
    ),
    Format("moco", "MoCo v1 or v2", ("encoder_q.conv1.weight",), "torchvision", _resnet_under("encoder_q.")),
    Format(
        "soco",
        "SoCo",
        ("encoder.conv1.weight", "neck.lateral_convs.0.conv.weight"),
        "mmdetection",
        {**_resnet_under("encoder.", "backbone."), **_NECK},
        pyramid_may_differ=True,
    ),
    Format("pixpro", "PixPro, or SoCo's C4", ("encoder.conv1.weight",), "torchvision", _resnet_under("encoder.")),
    Format(
        "dino",
        "DINO's teacher",
        ("backbone.conv1.weight", "head.last_layer.weight_g"),
        "mmdetection",
        _resnet_under("backbone.", "backbone."),
    ),
    Format(
        "canonical",
        "this project",
        ("backbone.conv1.weight", "fpn.inner_blocks.0.0.weight"),
        "canonical",
        {"backbone.": "backbone.", "fpn.": "fpn."},
    ),
    Format(
        "mmdetection",
        "mmdetection with feature pyramid",
        ("backbone.conv1.weight", "neck.lateral_convs.0.conv.weight"),
        "mmdetection",
        {**_resnet_under("backbone.", "backbone."), **_NECK},
        pyramid_may_differ=True,
    ),
    Format(
        "canonical",
        "this project, the backbone alone",
        ("backbone.conv1.weight",),
        "canonical",
        {"backbone.": "backbone."},
        alone=True,
    ),
    Format(
        "openselfsup",
        "OpenSelfSup or mmselfsup (MoCo, DenseCL, BYOL, ORL, ...)",
        ("backbone.conv1.weight",),
        "mmdetection",
        _resnet_under("backbone.", "backbone."),
    ),
    Format(
        "torchvision",
        "torchvision's detectors",
        ("backbone.body.conv1.weight",),
        "canonical",
        {**_resnet_under("backbone.body.", "backbone."), "backbone.fpn.": "fpn."},
        pyramid_may_differ=True,
    ),
    Format(
        "torchvision",
        "torchvision with feature pyramid",
        ("body.conv1.weight",),
        "canonical",
        {**_resnet_under("body.", "backbone."), "fpn.": "fpn."},
        pyramid_may_differ=True,
    ),
    Format(
        "swav",
        "SwAV",
        ("conv1.weight", "projection_head.0.weight"),
        "torchvision",
        _resnet_under(""),
    ),
    Format("torchvision", "torchvision or timm (the same names)", ("conv1.weight",), "torchvision", _resnet_under("")),
)
"""Recognised from the top down: the first whose markers are all there."""

_PYRAMID = re.compile(
    r"(?:backbone\.fpn_(?:lateral|output)|neck\.(?:lateral|fpn)_convs\.|fpn\.(?:inner|layer)_blocks\.)"
    r"(?P<level>\d+)\.(?P<tensor>.+)"
)

_CAFFE2_NAME = "conv1_w"

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and `torch.compile` put before every name."""


@dataclasses.dataclass(frozen=True)
class Identified:
    """A network found in a state dict.

    Attributes:
        format: name of the format.
        arch: timm name of the backbone.
        tensors: canonical name -> tensor; half precision is widened to float32, which is exact.
        unused: names, as the source has them, of tensors that belong neither to the backbone nor to the pyramid.
    """

    format: str
    arch: str
    tensors: dict[str, Tensor]
    unused: tuple[str, ...]


def identify(state: Mapping[str, Any], arch: str | None = None) -> Identified:
    """Recognise a state dict by its names and check that the network in it is whole.

    Args:
        state: tensor name -> tensor, in any of `FORMATS`; a prefix of `WRAPPERS` may stand before all names.
        arch: timm name of the backbone, where the source states it.

    Raises:
        UserError: no known format; names missing or unknown; shapes, types or numbers that no such network has.
    """
    tensors = {str(name): value.detach() for name, value in state.items() if isinstance(value, Tensor)}
    wrapper = _wrapper(tensors)
    inner = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    if arch is not None and (found := _unusual(inner, arch)) is not None:
        return found
    known = _recognise(inner)
    named, unused = {}, []
    for name, value in inner.items():
        target = known.renamed(name)
        if target is None:
            unused.append(wrapper + name)
        else:
            named[target] = value
    foreign = _foreign_pyramid(named) if known.pyramid_may_differ else set()
    unused += [wrapper + name for name in inner if known.renamed(name) in foreign]
    named = {name: value for name, value in named.items() if name not in foreign}
    require_sound(named)
    canonical = _in_full_precision(to_canonical(_with_counters(named), known.scheme))
    return Identified(known.name, find_arch(canonical, arch), canonical, tuple(unused))


def find_state_dict(tree: Any) -> Mapping[str, Any]:
    """The state dict in what a checkpoint file holds: under the usual keys, or the whole of it.

    Raises:
        UserError: there is none; the error lists the keys that there are.
    """
    if isinstance(tree, Mapping):
        for key in ("state_dict", "model", "teacher", "model_ema", "blobs"):
            inner = tree.get(key)
            if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
                return inner
        if any(isinstance(value, Tensor) for value in tree.values()):
            return tree
        raise UserError(
            f"no tensors under {', '.join(map(one_line, list(tree)[:10])) or 'nothing'}: give a weights file"
        )
    raise UserError(f"holds a {type(tree).__name__}, not tensors by name: save the state_dict")


def _wrapper(names: Mapping[str, Tensor]) -> str:
    wrapper = ""
    while (
        found := next((w for w in WRAPPERS if names and all(name.startswith(wrapper + w) for name in names)), None)
    ) is not None:
        wrapper += found
    return wrapper


def _recognise(state: Mapping[str, Tensor]) -> Format:
    for candidate in FORMATS:
        if all(marker in state for marker in candidate.markers) and not (
            candidate.alone and any(candidate.renamed(name) is None for name in state)
        ):
            return candidate
    if _CAFFE2_NAME in state:
        raise UserError(
            f"Caffe2 names ({_CAFFE2_NAME}, ...), as in Detectron2's ImageNet files of its authors' old framework, are "
            "not read: give the same network as torchvision, timm or Detectron2's own training saves it"
        )
    some = ", ".join(one_line(name) for name in list(state)[:5])
    titles = ", ".join(dict.fromkeys(candidate.title for candidate in FORMATS))
    raise UserError(f"no ResNet in a known format among {len(state)} tensors ({some}, ...); known are: {titles}")


def _unusual(state: dict[str, Tensor], arch: str) -> Identified | None:
    """A timm ResNet with another stem or shortcut than the plain one, which only its own names can tell."""
    expected = list(expected_tensors(arch, with_fpn=False))
    if layout_of(name.removeprefix("backbone.") for name in expected) is not None:
        return None
    scheme = "canonical" if any(name.startswith("backbone.") for name in state) else "timm"
    unused = tuple(name for name in state if scheme == "timm" and name.startswith("fc."))
    named = {name: value for name, value in state.items() if name not in unused}
    require_sound(named)
    canonical = _in_full_precision(to_canonical(named, scheme, arch))
    return Identified(scheme, find_arch(canonical, arch), canonical, unused)


def _foreign_pyramid(names: Iterable[str]) -> set[str]:
    """Names of a pyramid of another design than ours: convolutions with a bias, or other levels than four."""
    found = {name: match for name in names if (match := _PYRAMID.match(name))}
    levels = {match["level"] for match in found.values()}
    with_bias = any(match["tensor"] in ("bias", "conv.bias", "0.bias") for match in found.values())
    return set(found) if found and (with_bias or len(levels) != 4) else set()


def _with_counters(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the norms' batch counters where a format keeps none: inference never reads them, PyTorch starts them at 0."""
    if any(name.endswith(".num_batches_tracked") for name in named):
        return dict(named)
    counters = {
        name.removesuffix("running_mean") + "num_batches_tracked": torch.tensor(0)
        for name in named
        if name.endswith(".running_mean")
    }
    return {**named, **counters}


def _in_full_precision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    half = (torch.float16, torch.bfloat16)
    return {name: value.float() if value.dtype in half else value for name, value in tensors.items()}
