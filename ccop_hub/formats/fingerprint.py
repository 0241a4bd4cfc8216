"""Fingerprint of a network: a few numbers computed from its features on a fixed input.

It shows whether weights still produce the same features as at export, after a change of file, format, library version
or device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..architectures import BackboneFPN, empty_network
from ..errors import UserError

INPUT_SIDE = 64
"""Side of the square input in pixels."""

PROJECTIONS = 4
"""Numbers per stage."""

TOLERANCE = 1e-3
"""Maximum difference relative to a stage's root mean square: far above differences between machines (1e-5), far below
those caused by a relevant change of the weights."""


def fixed_input() -> Tensor:
    """Return (1, 3, 64, 64) float32: waves in a different direction per channel, in the range of normalised images."""
    rows = torch.arange(INPUT_SIDE, dtype=torch.float64)[:, None]
    columns = torch.arange(INPUT_SIDE, dtype=torch.float64)[None, :]
    channels = [2 * torch.sin(0.37 * columns + 0.23 * (c + 1) * rows + c) for c in range(3)]
    return torch.stack(channels)[None].float()


def loaded_network(arch: str, tensors: Mapping[str, Tensor]) -> BackboneFPN:
    """Build a network in eval mode from canonical tensors; without pyramid tensors, its pyramid has no values."""
    network = empty_network(arch)
    network.backbone.load_state_dict(_part(tensors, "backbone."), assign=True)
    if pyramid := _part(tensors, "fpn."):
        network.fpn.load_state_dict(pyramid, assign=True)
    return network.eval()


@torch.no_grad()
def features(arch: str, tensors: Mapping[str, Tensor], images: Tensor | None = None) -> dict[str, Tensor]:
    """Compute the features of a network in eval mode.

    Args:
        arch: timm name of the backbone.
        tensors: canonical name -> tensor; a backbone with or without a pyramid.
        images: (N, 3, H, W) float32, normalised RGB; `fixed_input()` if None.

    Returns:
        `res2` .. `res5`, and `p2` .. `p6` if there is a pyramid, each (N, C, H/stride, W/stride).
    """
    network = loaded_network(arch, tensors)
    stages = network.stages(fixed_input() if images is None else images)
    return {**stages, **(network.pyramid(stages) if _part(tensors, "fpn.") else {})}


def fingerprint(arch: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Compute the JSON-serialisable fingerprint of a set of weights.

    Returns:
        `{"tolerance": float, "values": {"res2": [root mean square, projections ...], ...}}`. A projection is the dot
        product of a stage's features, in memory order, with a cosine of fixed frequency.

    Raises:
        UserError: features overflow, although all weights are finite.
    """
    values = {name: _projections(value) for name, value in features(arch, tensors).items()}
    for name, numbers in values.items():
        if not all(map(math.isfinite, numbers)):
            raise UserError(
                f"the features {name} of a fixed input are not finite: use weights from before the run diverged"
            )
    return {"tolerance": TOLERANCE, "values": values}


def differences(stored: Mapping[str, Any], arch: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """List the stages whose features differ from a stored fingerprint, each with its maximum difference.

    A stage present on one side only counts as different. Uses the tolerance of this module, not the stored one.
    """
    found = features(arch, tensors)
    missing = [f"{name} is present on one side only" for name in sorted(found.keys() ^ stored["values"].keys())]
    return sorted(missing + level_differences(stored, found))


def level_differences(stored: Mapping[str, Any], found: Mapping[str, Tensor]) -> list[str]:
    """Like `differences`, for features of the fixed input; compares only the stages present on both sides."""
    then, told = stored["values"], []
    for name in found.keys() & then.keys():
        now = _projections(found[name])
        scale = max(then[name][0], 1e-12)
        largest = max(abs(a - b) for a, b in zip(now, then[name], strict=True)) / scale
        if not largest <= TOLERANCE:
            told.append(f"{name} differs by {largest:.2g} of its size")
    return sorted(told)


def _projections(value: Tensor) -> list[float]:
    flat = value.double().flatten()
    steps = torch.arange(flat.numel(), dtype=torch.float64)
    waves = [torch.cos(math.sqrt(2 * k + 1) * steps) for k in range(PROJECTIONS)]
    numbers = [flat.square().mean().sqrt()] + [flat @ wave / math.sqrt(flat.numel()) for wave in waves]
    return [float(f"{float(number):.7g}") for number in numbers]


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}
