"""Bootstrap confidence intervals of metrics and of paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .result import Interval

RESAMPLES = 2000
LEVEL = 0.95

Statistic = Callable[[np.ndarray], dict[str, float]]
"""Function from how often each unit was drawn, (N,) int, to metric name -> value in percent (NaN if undefined)."""


@dataclass(frozen=True)
class PairedIntervals:
    """Intervals of both weights' metrics and of their differences, from the same resamples.

    Attributes:
        own: metric -> (low, high) of the first weights.
        against: metric -> (low, high) of the second weights; empty in an unpaired run.
        paired: metric -> difference with its interval; empty in an unpaired run.
    """

    own: dict[str, tuple[float, float]]
    against: dict[str, tuple[float, float]]
    paired: dict[str, Interval]


def bootstrap(
    units: int, own: Statistic, against: Statistic | None, seed: int, resamples: int = RESAMPLES
) -> PairedIntervals:
    """Compute 95 % percentile bootstrap intervals, with the same resamples for both weights.

    The resampling unit is an image with everything in it, because images are what the data set samples.

    Args:
        units: number of images.
        own: statistic of the first weights.
        against: statistic of the second weights, with the same metric names; None in an unpaired run.
        seed: seed of the resampling.
        resamples: number of resamples.
    """
    generator = np.random.default_rng(seed)
    once = np.ones(units, dtype=np.int64)
    truth = own(once), against(once) if against else {}
    draws: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(resamples):
        counts = np.bincount(generator.integers(0, units, units), minlength=units)
        draws.append((own(counts), against(counts) if against else {}))
    own_draws = {name: np.array([draw[0][name] for draw in draws]) for name in truth[0]}
    other_draws = {name: np.array([draw[1][name] for draw in draws]) for name in truth[1]}
    differences = {name: (truth[0][name] - truth[1][name], own_draws[name] - other_draws[name]) for name in truth[1]}
    return PairedIntervals(
        own=_all_intervals(own_draws),
        against=_all_intervals(other_draws),
        paired={
            name: Interval(difference=float(difference), low=low, high=high, level=LEVEL)
            for name, (difference, values) in differences.items()
            for low, high in (_interval(values),)
            if np.isfinite([difference, low, high]).all()
        },
    )


def mean_statistic(values: Mapping[str, np.ndarray]) -> Statistic:
    """Make a statistic: the mean over images of each named (N,) array of 0/1 values, in percent."""
    names = list(values)
    table = np.stack([np.asarray(values[name], dtype=np.float64) for name in names])

    def statistic(counts: np.ndarray) -> dict[str, float]:
        return dict(zip(names, (100 * ((table @ counts) / counts.sum())).tolist(), strict=True))

    return statistic


def _all_intervals(draws: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    intervals = {name: _interval(values) for name, values in draws.items()}
    return {name: interval for name, interval in intervals.items() if np.isfinite(interval).all()}


def _interval(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
