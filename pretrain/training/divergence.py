"""Stop a diverging run at the first non-finite value, and name the likely cause."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ccop_hub.files import write_atomically

from ..common import distributed
from ..settings import RunSettings

MOST_SKIPPED = 16
"""Maximum number of consecutive steps that fp16 loss scaling may skip. Each halves the scale, which starts at 2^16
(torch's `GradScaler`); if gradients still overflow at a scale of 1, scaling is not the problem."""

SUSPICIOUS = 3.0
"""Factor by which a setting must differ from its usual value to be named as the likely cause."""

_ADAMW = {"lr": 0.001, "weight_decay": 0.1}
"""Usual values with AdamW: the learning rate that `--optimizer` advises and MoCo v3's weight decay (Chen et al. 2021,
appendix). The defaults are for SGD."""


class DivergedError(Exception):
    """A value in the run is not finite.

    Attributes:
        step: step in which it was found, from 1.
        what: what is not finite.
        indices: listing indices of the images in that step, over all processes.
    """

    def __init__(self, step: int, what: str, indices: Sequence[int]) -> None:
        super().__init__(f"{what} at step {step}")
        self.step = step
        self.what = what
        self.indices = list(indices)

    def record(self, path: Path, paths: Sequence[str]) -> None:
        """Write the step, the problem and the batch's images to a JSON file; `paths` is the full listing."""
        content = {"step": self.step, "found": self.what, "images": [paths[index] for index in self.indices]}
        write_atomically(path, json.dumps(content, indent=2) + "\n")


def require_finite(step: int, losses: Mapping[str, torch.Tensor], indices: Sequence[int]) -> None:
    """Check the losses of a step, jointly on all processes.

    Args:
        step: step, from 1.
        losses: 0-d losses of this process, by name.
        indices: listing indices of this process's images.

    Raises:
        DivergedError: a loss is NaN or infinite on any process.
    """
    values = torch.stack(list(losses.values()))
    if distributed.any_process(~values.isfinite().all(), values.device):
        figures = ", ".join(f"{name} {value:.4g}" for name, value in zip(losses, values.tolist(), strict=True))
        raise DivergedError(step, f"the loss is not finite ({figures})", _of_all_processes(indices, values.device))


def require_finite_state(step: int, module: nn.Module, indices: Sequence[int]) -> None:
    """Check every tensor of a module before saving it; arguments and errors are as in `require_finite`."""
    tensors = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all() for value in tensors.values()])
    if distributed.any_process(~finite.all(), finite.device):
        wrong = [name for name, is_finite in zip(tensors, finite.tolist(), strict=True) if not is_finite]
        what = f"{wrong[0]} is not finite" if wrong else "the weights of another process are not finite"
        raise DivergedError(step, what, _of_all_processes(indices, finite.device))


class SkippedSteps:
    """Counts consecutive steps that fp16 loss scaling skipped because of gradient overflow."""

    def __init__(self) -> None:
        self.count = 0

    def look(self, step: int, skipped: bool, indices: Sequence[int]) -> None:
        """Record whether a step (from 1) was skipped.

        Raises:
            DivergedError: more than `MOST_SKIPPED` consecutive steps were skipped.
        """
        self.count = self.count + 1 if skipped else 0
        if self.count > MOST_SKIPPED:
            raise DivergedError(step, f"the gradients overflowed in {self.count} steps in a row", indices)


def likely_cause(settings: RunSettings) -> str:
    """Return the setting that most likely made the run diverge, and the fix."""
    usual: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(RunSettings)}
    if settings.optimizer == "adamw":
        usual |= _ADAMW
    extremes = {name: usual[name] / getattr(settings, name) for name in ("temperature_image", "temperature_box")}
    for name in ("lr", "weight_decay", "weight_image", "weight_box", "weight_intra"):
        extremes[name] = getattr(settings, name) / usual[name]
    name, factor = max(extremes.items(), key=lambda item: item[1])
    if factor < SUSPICIOUS and settings.precision != "float32":
        return f"--precision {settings.precision} is the likely cause: use --precision float32"
    if factor < SUSPICIOUS:
        return f"--lr {settings.lr:g} is the likely cause: lower it"
    flag, value = name.replace("_", "-"), getattr(settings, name)
    remedy = "raise" if name.startswith("temperature") else "lower"
    return f"--{flag} {value:g} is the likely cause ({usual[name]:g} is usual): {remedy} it"


def _of_all_processes(indices: Sequence[int], device: torch.device) -> list[int]:
    gathered: list[int] = distributed.gather_rows(torch.tensor(indices, dtype=torch.long, device=device)).tolist()
    return gathered
