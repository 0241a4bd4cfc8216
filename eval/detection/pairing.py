"""Paired comparison of two runs on the same images, with confidence intervals for the AP difference."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..results.intervals import Statistic, bootstrap
from ..results.result import Against, Result
from .average_precision import match, statistic
from .plan import Plan
from .trainer import INFERENCE_FOLDER, PREDICTIONS_FILE

RESAMPLES = 1000
"""Bootstrap resamples of the scored images. They capture the variation between images, not between seeds."""


def pair(own: Result, against: Result, plan: Plan, against_folder: Path) -> Result:
    """Add the second result to the first, with intervals for AP, AP50, AP75 and their differences.

    Args:
        own: result of the first weights.
        against: result of the weights to compare with, from an otherwise identical plan.
        plan: plan of `own`.
        against_folder: the second run's Detectron2 folder.
    """
    kinds = sorted({name.split("/")[0] for name in own.metrics})
    sides = [_statistic(plan, folder, kinds) for folder in (plan.folder, against_folder)]
    intervals = bootstrap(plan.data.val.image_count, sides[0], sides[1], plan.settings.seed, RESAMPLES)
    return dataclasses.replace(
        own,
        intervals=intervals.own,
        paired=intervals.paired,
        against=Against(
            weights=against.weights,
            loaded=against.loaded,
            tensors=against.tensors,
            metrics=against.metrics,
            effective_lr=against.effective_lr,
            per_class=against.per_class,
            intervals=intervals.against,
            curve=against.curve,
        ),
        notes=list(dict.fromkeys([*own.notes, *against.notes])),
    )


def _statistic(plan: Plan, folder: Path, kinds: list[str]) -> Statistic:
    predictions = folder / INFERENCE_FOLDER / PREDICTIONS_FILE
    scorer, annotations = plan.configuration.scorer, plan.data.val.annotations
    return statistic(scorer, {kind: match(scorer, annotations, predictions, kind) for kind in kinds})
