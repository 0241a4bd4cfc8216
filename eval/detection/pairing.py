"""Two runs over the same images as a paired comparison: how sure is the difference of their AP?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..results.intervals import Statistic, bootstrap
from ..results.result import Against, Result
from .average_precision import match, statistic
from .plan import Plan
from .trainer import INFERENCE_FOLDER, PREDICTIONS_FILE

RESAMPLES = 1000
"""Resamples of the scored images. They say what other images would have given, not what another seed would have."""


def pair(own: Result, against: Result, plan: Plan, against_folder: Path) -> Result:
    """The first result with the second beside it, and intervals of AP, AP50, AP75 and of their differences.

    Args:
        own: of the weights.
        against: of the weights they are compared with; the same plan otherwise.
        plan: of `own`.
        against_folder: Detectron2's folder of the second run.
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
