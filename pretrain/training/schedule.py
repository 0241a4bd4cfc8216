"""The length of a run, and its learning rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ccop_hub.errors import UserError

from ..settings import OptimisationSettings

REFERENCE_BATCH = 256
"""Batch size at which `OptimisationSettings.lr` applies: 8 processes x 32 images (CCOP's `r50_d2.py`)."""


@dataclass(frozen=True)
class Schedule:
    """The length of a run and its learning rate schedule.

    Attributes:
        steps: total steps of the run.
        steps_per_epoch: full batches per epoch.
        warmup_steps: steps of linear warm-up.
        peak_lr: learning rate, scaled to the batch size.
        warmup_start: warm-up factor at the first step.
    """

    steps: int
    steps_per_epoch: int
    warmup_steps: float
    peak_lr: float
    warmup_start: float

    @classmethod
    def of(cls, settings: OptimisationSettings, image_count: int) -> Schedule:
        """Build the schedule of a run on `image_count` images.

        Raises:
            UserError: there are fewer images than the batch size, or the batch size is below two.
        """
        if settings.batch_size < 2:
            raise UserError(f"a batch of {settings.batch_size} is too small for batch norm: use --batch-size 2 or more")
        if image_count < settings.batch_size:
            raise UserError(
                f"{image_count} images are fewer than one batch of {settings.batch_size}: use --batch-size "
                f"{image_count} or less"
            )
        per_epoch = image_count // settings.batch_size
        steps = settings.epochs * per_epoch if settings.steps is None else settings.steps
        return cls(
            steps=steps,
            steps_per_epoch=per_epoch,
            warmup_steps=min(settings.warmup_epochs * per_epoch, steps / 2),
            peak_lr=settings.lr * settings.batch_size / REFERENCE_BATCH,
            warmup_start=settings.warmup_start,
        )

    def factor(self, step: int) -> float:
        """Return the learning rate at a step (0-based) relative to the peak: cosine decay times warm-up.

        The cosine starts at the first step and reaches 0 after the last. It is multiplied by the warm-up, like mmcv's
        `CosineAnnealing` with `warmup="linear"` in the authors' run, but updated every step.
        """
        cosine = (1 + math.cos(math.pi * min(step / self.steps, 1))) / 2
        if step >= self.warmup_steps:
            return cosine
        return cosine * (1 - (1 - step / self.warmup_steps) * (1 - self.warmup_start))
