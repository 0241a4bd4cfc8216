"""Pre-trained tensors into a detector, every one of them accounted for.

No name is guessed: the hub's table says where each tensor goes, and whatever does not fit is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ccop_hub.checkpoint import Weights
from ccop_hub.errors import UserError
from ccop_hub.names import from_canonical
from ccop_hub.resolve import RANDOM

from ..results import TensorUse
from .settings import LoadedParts

_PARTS = {
    "stem": "backbone.bottom_up.stem.",
    **{stage: f"backbone.bottom_up.{stage}." for stage in ("res2", "res3", "res4", "res5")},
    "FPN": "backbone.fpn_",
    "RPN": "proposal_generator.",
    "box head": "roi_heads.box_",
    "mask head": "roi_heads.mask_",
}
"""Rows of the accounting table: part -> prefix of its tensors in a `GeneralizedRCNN`'s state dict."""


@dataclasses.dataclass(frozen=True)
class PartCount:
    """Tensors and parameters of one part of the detector, and how many of them were loaded."""

    part: str
    tensors: int
    parameters: int
    loaded_tensors: int
    loaded_parameters: int


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of the weights' tensors and of the detector's.

    Attributes:
        loaded: the pre-trained parts: `backbone`, `backbone+fpn`, or `nothing` where the weights are untrained.
        use: canonical names used; names unused (canonical, or the source's own where they belong to neither backbone
            nor pyramid); the detector's own names of tensors that started at random.
        counts: the same by part of the detector.
    """

    loaded: str
    use: TensorUse
    counts: list[PartCount]

    def table(self) -> str:
        """The accounting as text, a line a part."""
        lines = [f"{'part':<10} {'loaded tensors':>15} {'loaded parameters':>24}"]
        for row in self.counts:
            tensors, parameters = (
                f"{row.loaded_tensors} of {row.tensors}",
                f"{row.loaded_parameters:,} of {row.parameters:,}",
            )
            lines.append(f"{row.part:<10} {tensors:>15} {parameters:>24}")
        unused = (
            f"{len(self.use.unused)} unused: {', '.join(self.use.unused[:4])}..." if self.use.unused else "none unused"
        )
        return "\n".join([*lines, f"the weights' tensors: {len(self.use.used)} used, {unused}"])


def load_weights(model: nn.Module, weights: Weights, load: LoadedParts = "backbone+fpn") -> LoadReport:
    """Copy the backbone, and the feature pyramid where there is one and it is asked for, into a detector.

    Untrained weights (`random`) are copied like any others, so that the digest in the result is that of the tensors
    the run started from; they count as nothing loaded.

    Args:
        model: a `GeneralizedRCNN` with Detectron2's ResNet-FPN.
        weights: as `ccop_hub.resolve` returns them.
        load: what to use of them.

    Raises:
        UserError: the detector's backbone and the weights' do not have exactly the same tensors, or a shape differs.
    """
    state = model.state_dict()
    wanted = tuple(part for part in load.split("+") if part in weights.parts)
    if "backbone" not in wanted:
        raise UserError(f"{weights.name} has no backbone: give weights that do")
    converted = from_canonical(weights.tensors, "detectron2", parts=wanted, arch=weights.arch)
    _check_fit(state, converted, weights, with_fpn="fpn" in wanted)
    with torch.no_grad():
        for name, value in converted.items():
            state[name].copy_(value)
    used = [name for name in weights.tensors if name.split(".", 1)[0] in wanted]
    unused = [name for name in weights.tensors if name.split(".", 1)[0] not in wanted] + list(weights.unused)
    loaded = "nothing" if weights.source == RANDOM else "+".join(wanted)
    return _report(state, converted, used, loaded, unused)


def _check_fit(state: Mapping[str, Tensor], converted: Mapping[str, Tensor], weights: Weights, with_fpn: bool) -> None:
    """Raise unless every backbone (and pyramid) tensor of the detector comes from the weights, in its shape."""
    needed = [name for name in state if name.startswith("backbone.bottom_up.")]
    if with_fpn:
        needed += [name for name in state if name.startswith("backbone.fpn_")]
    missing = [name for name in needed if name not in converted]
    homeless = [name for name in converted if name not in state]
    reshaped = [name for name in converted if name in state and converted[name].shape != state[name].shape]
    for names, what in (
        (missing, "lack"),
        (homeless, "have, and the detector has not,"),
        (reshaped, "differ in shape in"),
    ):
        if names:
            raise UserError(
                f"{weights.name} does not fit the detector's {weights.arch}: the weights {what} {len(names)} tensors "
                f"({', '.join(names[:3])}...); give --arch the architecture that they were trained with"
            )


def _report(
    state: Mapping[str, Tensor], converted: Mapping[str, Tensor], used: list[str], loaded: str, unused: list[str]
) -> LoadReport:
    counts = []
    for part, prefix in _PARTS.items():
        own = [name for name in state if name.startswith(prefix)]
        hit = [name for name in own if name in converted]
        if own:
            sizes = [sum(state[name].numel() for name in names) for names in (own, hit)]
            counts.append(PartCount(part, len(own), sizes[0], len(hit), sizes[1]))
    missing = [name for name in state if name not in converted]
    return LoadReport(loaded=loaded, use=TensorUse(used=used, unused=unused, missing=missing), counts=counts)
