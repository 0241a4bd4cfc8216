"""The length of a run and its learning rate at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ccop_hub.errors import UserError

from ..settings import OptimisationSettings

REFERENCE_BATCH = 256
"""Images a step that `OptimisationSettings.lr` is given for: 8 processes x 32 (CCOP's `r50_d2.py`)."""


@dataclass(frozen=True)
class Schedule:
    """The length of a run and the course of its learning rate.

    Attributes:
        steps: steps of the whole run.
        steps_per_epoch: whole batches in a pass over the images.
        warmup_steps: steps of linear warm-up.
        peak_lr: learning rate scaled to the batch.
        warmup_start: share of the learning rate at the first step.
    """

    steps: int
    steps_per_epoch: int
    warmup_steps: float
    peak_lr: float
    warmup_start: float

    @classmethod
    def of(cls, settings: OptimisationSettings, image_count: int) -> Schedule:
        """The schedule of a run over so many images.

        Raises:
            UserError: there are fewer images than a batch, or a batch has fewer than two.
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
        """Share of the peak learning rate at a step (0-based): the cosine of the whole run times the warm-up.

        The cosine starts at the first step and reaches 0 after the last; the warm-up multiplies it, as mmcv's
        `CosineAnnealing` with `warmup="linear"` does in the authors' run, but step by step.
        """
        cosine = (1 + math.cos(math.pi * min(step / self.steps, 1))) / 2
        if step >= self.warmup_steps:
            return cosine
        return cosine * (1 - (1 - step / self.warmup_steps) * (1 - self.warmup_start))
