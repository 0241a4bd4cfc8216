"""Box classification accuracy, overall and per-class mean, for all boxes and by size, with images as units."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..results.intervals import Statistic
from ..results.result import Metrics
from .coco_boxes import SIZES, BoxedImages


def box_groups(split: BoxedImages) -> dict[str, np.ndarray]:
    """Map each metric group, "" (all), "small/", "medium/" and "large/", to an (N,) bool mask of its boxes."""
    areas = np.concatenate(split.areas)
    groups = {f"{name}/": (areas >= low) & (areas < high) for name, (low, high) in SIZES.items()}
    return {"": np.ones(len(areas), dtype=bool), **groups}


def accuracy_statistic(split: BoxedImages, hits: Mapping[str, np.ndarray]) -> Statistic:
    """Make a statistic that computes all accuracies, in percent, from how often each image was drawn.

    Metrics are named `{kind}/{group}overall` and `{kind}/{group}mean_class`, e.g. `knn/small/overall`. `mean_class`
    averages over the classes with a box in the group. Metrics of an empty group are NaN.

    Args:
        split: the scored boxes.
        hits: classifier -> (N,) bool, whether each box was classified correctly.
    """
    labels, owners = np.concatenate(split.labels), split.owners
    shape = (len(split.paths), len(split.classes))
    tables: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for group, member in box_groups(split).items():
        total = np.zeros(shape)
        np.add.at(total, (owners[member], labels[member]), 1.0)
        for kind, right in hits.items():
            correct = np.zeros(shape)
            np.add.at(correct, (owners[member], labels[member]), right[member].astype(float))
            tables[f"{kind}/{group}"] = (correct, total)

    def statistic(counts: np.ndarray) -> dict[str, float]:
        values = {}
        for name, (correct, total) in tables.items():
            right, boxes = counts @ correct, counts @ total
            present = boxes > 0
            empty = not present.any()
            values[f"{name}overall"] = float("nan") if empty else float(100 * right.sum() / boxes.sum())
            values[f"{name}mean_class"] = (
                float("nan") if empty else float(100 * (right[present] / boxes[present]).mean())
            )
        return values

    return statistic


def class_accuracy(split: BoxedImages, hits: np.ndarray) -> Metrics:
    """Accuracy per class, in percent; None for a class without boxes."""
    labels = np.concatenate(split.labels)
    return {
        name: float(100 * hits[labels == index].mean()) if (labels == index).any() else None
        for index, name in enumerate(split.classes)
    }
