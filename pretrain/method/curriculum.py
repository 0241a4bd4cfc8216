"""The curriculum: spatial noise on key boxes that grows over training (CCOP, arXiv 2111.13651)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class BoxNoise:
    """Noise parameters of one step, as 0-d float32 tensors.

    Attributes:
        iou_threshold: minimum IoU of a valid jitter with its box.
        centre_magnitude: width of the uniform distribution of centre shifts, relative to the box size.
        size_magnitude: width of the uniform distribution of log-size changes.
    """

    iou_threshold: Tensor
    centre_magnitude: Tensor
    size_magnitude: Tensor


@dataclass(frozen=True)
class Curriculum:
    """Interpolates the noise parameters linearly over training; each is given as (start, end).

    Attributes:
        iou_threshold: see `BoxNoise`.
        centre_magnitude: see `BoxNoise`.
        size_magnitude: see `BoxNoise`.
        total_steps: total training steps, at least 1.
    """

    iou_threshold: tuple[float, float]
    centre_magnitude: tuple[float, float]
    size_magnitude: tuple[float, float]
    total_steps: int

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise ValueError(f"total_steps is {self.total_steps}; the curriculum needs at least 1")

    def noise(self, step: Tensor) -> BoxNoise:
        """Return the noise at `step` (0-d, counted from 1), clamped to the start and end values."""
        progress = (step / self.total_steps).clamp(0, 1)
        return BoxNoise(
            iou_threshold=_between(self.iou_threshold, progress),
            centre_magnitude=_between(self.centre_magnitude, progress),
            size_magnitude=_between(self.size_magnitude, progress),
        )


def _between(ends: tuple[float, float], progress: Tensor) -> Tensor:
    start, end = ends
    return start + (end - start) * progress
