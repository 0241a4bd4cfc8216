"""Tensor names of a ResNet and its feature pyramid in the libraries that hold such networks.

Every naming scheme is a rule that renames one canonical tensor; applied to the full list of a network's tensors it
gives a one-to-one table, which is then read in either direction. Nothing is guessed: a name that is
not in the table is an error, and so is a name in the table that the file lacks.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..architectures import build_backbone
from ..errors import UserError, one_line

PARTS = ("backbone", "fpn")

NORM_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""Tensors of a `torch.nn.BatchNorm2d`, in state-dict order."""

_LISTED = 60


class KeyMismatchError(UserError):
    """Tensor names that a scheme does not know, or that it needs and did not find.

    Attributes:
        unknown: names in the source that have no counterpart.
        missing: names that the source should have had.
    """

    def __init__(self, source: str, layout: str, unknown: Sequence[str], missing: Sequence[str]) -> None:
        self.unknown = tuple(unknown)
        self.missing = tuple(missing)
        told = [f"{word}: {_shortened(names)}" for word, names in (("unknown", unknown), ("missing", missing)) if names]
        super().__init__(
            f"these tensors are not exactly a {layout} in {source} names; {'; '.join(told)}. "
            "Take a file of that architecture and format"
        )


@dataclasses.dataclass(frozen=True)
class Layout:
    """What decides the tensor names of a plain ResNet: the kind of block and the number of blocks by stage."""

    convolutions: int
    blocks: tuple[int, int, int, int]

    def backbone_names(self) -> list[str]:
        """Canonical names of the backbone's tensors, without the `backbone.` prefix, in state-dict order."""
        names = ["conv1.weight", *_norm("bn1")]
        for stage, count in enumerate(self.blocks, start=1):
            for block in range(count):
                path = f"layer{stage}.{block}"
                for k in range(1, self.convolutions + 1):
                    names += [f"{path}.conv{k}.weight", *_norm(f"{path}.bn{k}")]
                if block == 0 and (stage > 1 or self.convolutions == 3):
                    names += [f"{path}.downsample.0.weight", *_norm(f"{path}.downsample.1")]
        return names


LAYOUTS = {
    "resnet18": Layout(2, (2, 2, 2, 2)),
    "resnet34": Layout(2, (3, 4, 6, 3)),
    "resnet50": Layout(3, (3, 4, 6, 3)),
    "resnet101": Layout(3, (3, 4, 23, 3)),
    "resnet152": Layout(3, (3, 8, 36, 3)),
}
"""Block kind (2 or 3 convolutions) and blocks by stage (He et al. 2016, table 1); wider networks share the names."""


def fpn_names() -> list[str]:
    """Canonical names of the pyramid's tensors, without the `fpn.` prefix, in state-dict order."""
    names = []
    for group in ("inner_blocks", "layer_blocks"):
        for level in range(4):
            names += [f"{group}.{level}.0.weight", *_norm(f"{group}.{level}.1")]
    return names


def _norm(path: str) -> list[str]:
    return [f"{path}.{tensor}" for tensor in NORM_TENSORS]


# --- one rule a scheme: canonical name, and whether the pyramid is part of the dictionary -> the scheme's name


def _canonical(name: str, with_fpn: bool) -> str:
    return name


def _torchvision(name: str, with_fpn: bool) -> str:
    if name.startswith("fpn."):
        return name
    return name.replace("backbone.", "body." if with_fpn else "", 1)


def _timm(name: str, with_fpn: bool) -> str:
    if with_fpn:
        raise UserError("timm has no names for a feature pyramid: convert only parts=('backbone',)")
    return name.removeprefix("backbone.")


def detectron2_module(name: str) -> str:
    """`backbone.layer1.0.bn2.weight` -> `res2.0.conv2.norm.weight`."""
    name = name.removeprefix("backbone.")
    name = re.sub(r"^(conv1|bn1)\.", r"stem.\1.", name)
    name = re.sub(r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}.", name)
    name = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name)
    return name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")


def detectron2_pyramid(name: str) -> str:
    """`inner_blocks.0.1.weight` -> `fpn_lateral2.norm.weight`."""
    group, level, position, tensor = name.split(".")
    kind = {"inner_blocks": "fpn_lateral", "layer_blocks": "fpn_output"}[group]
    return f"{kind}{int(level) + 2}.{'norm.' if position == '1' else ''}{tensor}"


def mmdetection_pyramid(name: str) -> str:
    """`inner_blocks.0.1.weight` -> `neck.lateral_convs.0.bn.weight`."""
    group, level, position, tensor = name.split(".")
    kind = {"inner_blocks": "lateral_convs", "layer_blocks": "fpn_convs"}[group]
    return f"neck.{kind}.{level}.{'conv' if position == '0' else 'bn'}.{tensor}"


def _detectron2(name: str, with_fpn: bool) -> str:
    if name.startswith("fpn."):
        return f"backbone.{detectron2_pyramid(name.removeprefix('fpn.'))}"
    return f"backbone.bottom_up.{detectron2_module(name)}"


def _detectron2_c4(name: str, with_fpn: bool) -> str:
    if with_fpn:
        raise UserError("Detectron2's C4 detector has no feature pyramid: convert only parts=('backbone',)")
    module = detectron2_module(name)
    return f"roi_heads.{module}" if module.startswith("res5.") else f"backbone.{module}"


def _mmdetection(name: str, with_fpn: bool) -> str:
    return mmdetection_pyramid(name.removeprefix("fpn.")) if name.startswith("fpn.") else name


_SCHEMES: dict[str, Callable[[str, bool], str]] = {
    "canonical": _canonical,
    "torchvision": _torchvision,
    "timm": _timm,
    "detectron2": _detectron2,
    "detectron2-c4": _detectron2_c4,
    "mmdetection": _mmdetection,
}

SCHEMES = tuple(_SCHEMES)
"""Naming schemes: `canonical` (timm ResNet under `backbone.`, torchvision pyramid under `fpn.`), `torchvision` (a
ResNet's own names; with a pyramid `BackboneWithFPN`'s `body.` and `fpn.`), `timm`, `detectron2` (a `GeneralizedRCNN`'s
`backbone.bottom_up.` and `backbone.fpn_*`), `detectron2-c4` (`backbone.` and `roi_heads.res5.`), `mmdetection`
(`backbone.` and `neck.` with `norm_cfg`)."""


def to_canonical(state: Mapping[str, Tensor], source: str, arch: str | None = None) -> dict[str, Tensor]:
    """Rename a state dict to canonical names; the tensors themselves are passed through.

    Args:
        state: exactly the tensors of a backbone, of a pyramid or of both, under the names of `source`.
        source: one of `SCHEMES`.
        arch: timm name of the backbone. Needed only for timm ResNets with another stem or shortcut than the plain one.

    Raises:
        KeyMismatchError: a name is unknown or missing; all such names are in the error.
        UserError: no such scheme.
    """
    scheme = _scheme(source)
    fewest: tuple[int, str, list[str], list[str]] | None = None
    for layout, backbone in _candidates(arch, source).items():
        for parts in (("backbone",), PARTS, ("fpn",)):
            table = _table(scheme, backbone, parts)
            if table is None:
                continue
            if table.keys() == state.keys():
                return {canonical: state[name] for name, canonical in table.items()}
            unknown = [name for name in state if name not in table]
            missing = [name for name in table if name not in state]
            if fewest is None or len(unknown) + len(missing) < fewest[0]:
                fewest = (len(unknown) + len(missing), _described(layout, parts), unknown, missing)
    assert fewest is not None
    raise KeyMismatchError(source, *fewest[1:])


def from_canonical(
    tensors: Mapping[str, Tensor], target: str, parts: Sequence[str] = PARTS, arch: str | None = None
) -> dict[str, Tensor]:
    """Rename tensors with canonical names to another scheme; the tensors themselves are passed through.

    Args:
        tensors: canonical name -> tensor, complete for each part that is present.
        target: one of `SCHEMES`.
        parts: which of `backbone` and `fpn` to take, where present. The rest is left out.
        arch: timm name of the backbone, as in `to_canonical`.

    Raises:
        KeyMismatchError: `tensors` has a name that is not canonical, or lacks one.
        UserError: no such scheme, or the scheme has no names for a part (`timm` and `detectron2-c4` know no pyramid).
    """
    scheme = _scheme(target)
    wanted = to_canonical(tensors, "canonical", arch)
    wanted = {name: value for name, value in wanted.items() if name.split(".", 1)[0] in parts}
    if not wanted:
        raise UserError(f"these weights contain none of the parts {', '.join(parts)}: request a part that they contain")
    with_fpn = any(name.startswith("fpn.") for name in wanted)
    if target not in ("canonical", "timm"):
        _require_plain_names(wanted, target)
    return {scheme(name, with_fpn): value for name, value in wanted.items()}


def layout_of(backbone: Iterable[str]) -> str | None:
    """The plain ResNet (`resnet50`, ...) that has exactly these tensor names (without `backbone.`), or None."""
    found = set(backbone)
    return next((name for name, layout in LAYOUTS.items() if set(layout.backbone_names()) == found), None)


def _scheme(name: str) -> Callable[[str, bool], str]:
    if name not in _SCHEMES:
        raise UserError(f"no naming scheme {name!r}: use one of {', '.join(SCHEMES)}")
    return _SCHEMES[name]


def _candidates(arch: str | None, source: str) -> dict[str, list[str]]:
    """Backbone tensor names by the architecture that they would belong to."""
    if arch is None:
        return {name: layout.backbone_names() for name, layout in LAYOUTS.items()}
    with torch.device("meta"):
        names = list(build_backbone(arch).state_dict())
    if source not in ("canonical", "timm") and layout_of(names) is None:
        raise UserError(f"{source} has no names for the stem or shortcuts of {arch}: keep canonical or timm names")
    return {arch: names}


def _table(scheme: Callable[[str, bool], str], backbone: list[str], parts: tuple[str, ...]) -> dict[str, str] | None:
    """The scheme's name -> canonical name; None where the scheme has no names for these parts."""
    names = [f"backbone.{name}" for name in backbone] if "backbone" in parts else []
    names += [f"fpn.{name}" for name in fpn_names()] if "fpn" in parts else []
    try:
        return {scheme(name, "fpn" in parts): name for name in names}
    except UserError:
        return None


def _require_plain_names(tensors: Mapping[str, Tensor], target: str) -> None:
    backbone = [name.removeprefix("backbone.") for name in tensors if name.startswith("backbone.")]
    if backbone and layout_of(backbone) is None:
        raise UserError(f"{target} has no names for this ResNet's stem or shortcuts: keep canonical or timm names")


def _described(layout: str, parts: tuple[str, ...]) -> str:
    return {PARTS: f"{layout} with feature pyramid", ("backbone",): layout}.get(parts, "feature pyramid")


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(one_line(name, 200) for name in names[:_LISTED]) + more
