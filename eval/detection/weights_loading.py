"""Load pre-trained tensors into a detector, accounting for every one.

Names are never guessed: the hub's table maps each tensor, and any mismatch is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ccop_hub.architectures import build_backbone
from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.formats.names import detectron2_pyramid, from_canonical
from ccop_hub.formats.tensor_use import TensorUse, copy_exactly, require_fit, require_parts
from ccop_hub.sources.resolve import RANDOM

from ..settings import LoadedParts

_NORM_AFTER_RES5 = "norm after res5"
_TIMM = "backbone"

_PARTS: dict[str, tuple[str, ...]] = {
    "stem": ("backbone.bottom_up.stem.", "backbone.stem."),
    **{f"res{stage}": (f"backbone.bottom_up.res{stage}.", f"backbone.res{stage}.") for stage in (2, 3, 4)},
    "res5": ("backbone.bottom_up.res5.", "roi_heads.res5."),
    _NORM_AFTER_RES5: ("roi_heads.res5.norm.",),
    _TIMM: ("backbone.bottom_up.body.",),
    "FPN": ("backbone.fpn_",),
    "RPN": ("proposal_generator.",),
    "box head": ("roi_heads.box_",),
    "mask head": ("roi_heads.mask_",),
}
"""Rows of the accounting table: part -> prefixes of its tensors in a `GeneralizedRCNN`'s state dict, first for an FPN,
then for a C4 detector. The longest matching prefix wins."""


@dataclasses.dataclass(frozen=True)
class PartCount:
    """Number of tensors and parameters in one part of the detector, in total and loaded."""

    part: str
    tensors: int
    parameters: int
    loaded_tensors: int
    loaded_parameters: int


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """Which tensors of the weights and the detector were matched.

    Attributes:
        loaded: the pre-trained parts: `backbone`, `backbone+fpn`, or `nothing` for untrained weights.
        use: used tensors (canonical names); unused ones (canonical names, or the source's outside backbone and
            pyramid); and the detector's randomly initialised ones (Detectron2's names).
        counts: tensor and parameter counts per part of the detector.
    """

    loaded: str
    use: TensorUse
    counts: list[PartCount]

    def table(self) -> str:
        """Format the counts as text, one line per part."""
        lines = [f"{'part':<16} {'loaded tensors':>15} {'loaded parameters':>24}"]
        for row in self.counts:
            tensors, parameters = (
                f"{row.loaded_tensors} of {row.tensors}",
                f"{row.loaded_parameters:,} of {row.parameters:,}",
            )
            start = "" if row.loaded_tensors == row.tensors else "starts at random"
            lines.append(f"{row.part:<16} {tensors:>15} {parameters:>24}  {start}".rstrip())
        unused = (
            f"{len(self.use.unused)} unused: {', '.join(self.use.unused[:4])}..." if self.use.unused else "none unused"
        )
        return "\n".join([*lines, f"the weights' tensors: {len(self.use.used)} used, {unused}"])


def load_weights(model: nn.Module, weights: Weights, load: LoadedParts = "backbone+fpn") -> LoadReport:
    """Copy the backbone, and optionally the feature pyramid, into a detector.

    Untrained weights (`random`) are copied like any others, so that the result's digest matches the tensors the run
    started from, but count as `nothing` loaded. A C4 detector has no pyramid: it takes only the backbone, whose res5
    goes into the region heads.

    Args:
        model: a `GeneralizedRCNN` with Detectron2's ResNet, with a feature pyramid or as C4.
        weights: as `ccop_hub.sources.resolve` returns them.
        load: the parts to use, if the weights have them.

    Raises:
        UserError: the tensors of the weights' backbone and the detector's do not match exactly, or a shape, stride,
            padding, dilation or norm differs.
    """
    state = model.state_dict()
    is_c4 = not hasattr(model.backbone, "bottom_up")
    wanted = tuple(part for part in load.split("+") if part in weights.parts and not (is_c4 and part == "fpn"))
    require_parts(weights, ("backbone",))
    is_timm = any(name.startswith(_PARTS[_TIMM]) for name in state)
    if is_timm:
        converted = _below_pyramid(weights, wanted)
    else:
        scheme = "detectron2-c4" if is_c4 else "detectron2"
        converted = from_canonical(weights.tensors, scheme, parts=wanted, arch=weights.arch)
    rows = [_TIMM] if is_timm else ["stem", "res2", "res3", "res4", "res5"]
    rows += ["FPN"] if "fpn" in wanted else []
    own = {name: value for name, value in state.items() if _part_of(name) in rows}
    place = f"detector's {weights.arch}"
    require_fit(own, converted, weights.name, place)
    if not is_timm:
        _check_geometry(model, converted, weights)
    copy_exactly(own, converted, weights.name, place)
    used = [name for name in weights.tensors if name.split(".", 1)[0] in wanted]
    unused = [name for name in weights.tensors if name.split(".", 1)[0] not in wanted] + list(weights.unused)
    loaded = "nothing" if weights.source == RANDOM else "+".join(wanted)
    return _report(state, converted, used, loaded, unused)


def _below_pyramid(weights: Weights, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """Rename the tensors to those of a timm backbone below Detectron2's pyramid."""
    renamed = {f"backbone.bottom_up.body.{name}": value for name, value in weights.part("backbone").items()}
    if "fpn" in parts:
        pyramid = weights.part("fpn").items()
        renamed |= {f"backbone.{detectron2_pyramid(name)}": value for name, value in pyramid}
    return renamed


def _check_geometry(model: nn.Module, converted: Mapping[str, Tensor], weights: Weights) -> None:
    """Raise unless the detector's layers compute the same function as the backbone's, which tensors cannot show.

    A stride on the 1x1 instead of the 3x3 convolution, or a different kind of norm, matches every shape and silently
    costs AP.
    """
    with torch.device("meta"):
        reference = build_backbone(weights.arch)
    names = {id(tensor): name for name, tensor in converted.items()}
    for path, original in reference.named_modules():
        tensor = weights.tensors.get(f"backbone.{path}.weight")
        if tensor is None:
            continue
        name = names[id(tensor)].removesuffix(".weight")
        theirs = _geometry(model.get_submodule(name))
        for (what, had), (_, has) in zip(_geometry(original), theirs, strict=False):
            if had != has:
                raise UserError(
                    f"{weights.name} does not fit the detector: {name} has {what} {has}, and the checkpoint's network "
                    f"{had}; use a protocol with a plain {weights.arch} as backbone"
                )


def _geometry(module: nn.Module) -> list[tuple[str, object]]:
    """Named properties of a convolution or norm that its tensors do not show."""
    if isinstance(module, nn.Conv2d):
        return [(name, getattr(module, name)) for name in ("stride", "padding", "dilation", "groups")]
    # torch's BatchNorm2d and SyncBatchNorm and Detectron2's NaiveSyncBatchNorm are equivalent for the same tensors.
    kind = "batch norm" if isinstance(module, nn.modules.batchnorm._BatchNorm) else type(module).__name__
    return [("norm", kind), ("eps", getattr(module, "eps", None))]


def _part_of(name: str) -> str | None:
    """The accounting table's row for one of the detector's tensors."""
    fitting = [
        (len(prefix), part) for part, prefixes in _PARTS.items() for prefix in prefixes if name.startswith(prefix)
    ]
    return max(fitting)[1] if fitting else None


def _report(
    state: Mapping[str, Tensor], converted: Mapping[str, Tensor], used: list[str], loaded: str, unused: list[str]
) -> LoadReport:
    counts = []
    for part in _PARTS:
        own = [name for name in state if _part_of(name) == part]
        hit = [name for name in own if name in converted]
        if own:
            sizes = [sum(state[name].numel() for name in names) for names in (own, hit)]
            counts.append(PartCount(part, len(own), sizes[0], len(hit), sizes[1]))
    missing = [name for name in state if name not in converted]
    return LoadReport(loaded=loaded, use=TensorUse(used=used, unused=unused, missing=missing), counts=counts)
