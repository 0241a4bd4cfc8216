"""The duration of a training step, once a run has settled."""

from __future__ import annotations

import time

WARMUP_STEPS = 2
"""Steps that are not measured: the first ones allocate memory, choose algorithms and wait for the first images."""

MEASURED_STEPS = 4
MEASURED_SECONDS = 15.0
"""Measure at least this many steps and seconds, so that the batches loaded in advance weigh little."""

MOST_SECONDS = 120.0
"""Stop measuring after this time, even with fewer steps."""


class Pace:
    """Measures the mean duration of the first steps after `WARMUP_STEPS`.

    Attributes:
        seconds: seconds per step; None until enough steps have been measured.
        steps: number of measured steps.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self.steps = -WARMUP_STEPS
        self._begun = 0.0

    def step_ended(self) -> bool:
        """Count a step; return whether it completes the measurement."""
        if self.seconds is not None:
            return False
        self.steps += 1
        now = time.perf_counter()
        if self.steps == 0:
            self._begun = now
        spent = now - self._begun
        enough = self.steps >= MEASURED_STEPS and spent >= MEASURED_SECONDS
        if enough or (self.steps > 0 and spent >= MOST_SECONDS):
            self.seconds = spent / self.steps
        return self.seconds is not None
