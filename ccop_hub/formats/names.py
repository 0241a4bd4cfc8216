"""Tensor names of a ResNet and its feature pyramid in different libraries.

A naming scheme is a function that renames a canonical tensor. Applied to all tensors of a network, it yields a
one-to-one table that is used in both directions. Nothing is guessed: unknown and missing names are errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import UserError, first_names
from ..plain_resnets import LAYOUTS, PLAIN_RESNETS, fpn_names

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("backbone", "fpn")

_LISTED = 60


class KeyMismatchError(UserError):
    """Tensor names do not match the naming scheme.

    Attributes:
        unknown: names in the source without a counterpart.
        missing: names that the source lacks.
    """

    def __init__(self, source: str, layout: str, unknown: Sequence[str], missing: Sequence[str]) -> None:
        self.unknown = tuple(unknown)
        self.missing = tuple(missing)
        told = [
            f"{word}: {first_names(names, _LISTED)}"
            for word, names in (("unknown", unknown), ("missing", missing))
            if names
        ]
        super().__init__(
            f"these tensors are not exactly a {layout} in {source} names; {'; '.join(told)}. "
            "Take a file of that architecture and format"
        )


# --- one function per scheme: canonical name, and whether the state dict includes the pyramid -> the scheme's name


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
"""Naming schemes: `canonical` (timm backbone under `backbone.`, torchvision pyramid under `fpn.`), `torchvision` (a
ResNet's own names; with a pyramid `BackboneWithFPN`'s `body.` and `fpn.`), `timm`, `detectron2` (a `GeneralizedRCNN`'s
`backbone.bottom_up.` and `backbone.fpn_*`), `detectron2-c4` (`backbone.` and `roi_heads.res5.`), `mmdetection`
(`backbone.` and `neck.` with `norm_cfg`)."""


def to_canonical(state: Mapping[str, Tensor], source: str, arch: str | None = None) -> dict[str, Tensor]:
    """Rename a state dict to canonical names; the tensors are not copied.

    Args:
        state: exactly the tensors of a backbone, a pyramid or both, under the names of `source`.
        source: one of `SCHEMES`.
        arch: timm name of the backbone. Only required for backbones other than plain ResNets.

    Raises:
        KeyMismatchError: names are unknown or missing; lists all of them.
        UserError: the scheme is unknown.
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
    """Rename canonical tensors to another scheme; the tensors are not copied.

    Args:
        tensors: canonical name -> tensor, complete for each part present.
        target: one of `SCHEMES`.
        parts: parts to include if present, `backbone` or `fpn` or both.
        arch: timm name of the backbone, as in `to_canonical`.

    Raises:
        KeyMismatchError: `tensors` has non-canonical names or lacks some.
        UserError: the scheme is unknown or does not support a part (`timm` and `detectron2-c4` have no pyramid).
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
    """Return the plain ResNet (`resnet50`, ...) with exactly these tensor names (without `backbone.`), or None."""
    found = set(backbone)
    return next((name for name, layout in LAYOUTS.items() if set(layout.backbone_names()) == found), None)


def backbone_names(arch: str) -> list[str]:
    """Return the tensor names of any timm ResNet (without `backbone.`), in state-dict order.

    Raises:
        UserError: timm has no such network, or it is not a ResNet.
    """
    if arch in PLAIN_RESNETS:
        return PLAIN_RESNETS[arch].backbone_names()
    from ..architectures import empty_backbone  # imports torch

    return list(empty_backbone(arch).state_dict())


def _scheme(name: str) -> Callable[[str, bool], str]:
    if name not in _SCHEMES:
        raise UserError(f"no naming scheme {name!r}: use one of {', '.join(SCHEMES)}")
    return _SCHEMES[name]


def _candidates(arch: str | None, source: str) -> dict[str, list[str]]:
    """Map each candidate architecture to its backbone tensor names."""
    if arch is None:
        return {name: layout.backbone_names() for name, layout in LAYOUTS.items()}
    names = backbone_names(arch)
    if source not in ("canonical", "timm") and layout_of(names) is None:
        raise UserError(f"{source} has no names for the tensors of {arch}: use safetensors, timm or onnx")
    return {arch: names}


def _table(scheme: Callable[[str, bool], str], backbone: list[str], parts: tuple[str, ...]) -> dict[str, str] | None:
    """Map the scheme's names to canonical names; None if the scheme does not support these parts."""
    names = [f"backbone.{name}" for name in backbone] if "backbone" in parts else []
    names += [f"fpn.{name}" for name in fpn_names()] if "fpn" in parts else []
    try:
        return {scheme(name, "fpn" in parts): name for name in names}
    except UserError:
        return None


def _require_plain_names(tensors: Mapping[str, Tensor], target: str) -> None:
    backbone = [name.removeprefix("backbone.") for name in tensors if name.startswith("backbone.")]
    if backbone and layout_of(backbone) is None:
        raise UserError(f"{target} has no names for the tensors of this backbone: use safetensors, timm or onnx")


def _described(layout: str, parts: tuple[str, ...]) -> str:
    return {PARTS: f"{layout} with feature pyramid", ("backbone",): layout}.get(parts, "feature pyramid")
