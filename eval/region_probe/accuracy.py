"""Accuracy on boxes, overall and averaged over classes, for all boxes and by size, as a statistic over images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..results.intervals import Statistic
from ..results.result import Metrics
from .coco_boxes import SIZES, BoxedImages


def box_groups(split: BoxedImages) -> dict[str, np.ndarray]:
    """The boxes of each group of metrics, as (N,) bool: "" (all), "small/", "medium/" and "large/"."""
    areas = np.concatenate(split.areas)
    groups = {f"{name}/": (areas >= low) & (areas < high) for name, (low, high) in SIZES.items()}
    return {"": np.ones(len(areas), dtype=bool), **groups}


def accuracy_statistic(split: BoxedImages, hits: Mapping[str, np.ndarray]) -> Statistic:
    """A statistic: all accuracies in percent, given how often each image was drawn.

    Names are `{kind}/{group}overall` and `{kind}/{group}mean_class`, such as `knn/small/overall`. The mean is over the
    classes that have a box in the group; NaN where the group is empty.

    Args:
        split: the scored boxes.
        hits: kind of classifier -> (N,) bool, whether each box was classified correctly.
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
    """Share of each class's boxes that are hits, in percent; None for a class without a box."""
    labels = np.concatenate(split.labels)
    return {
        name: float(100 * hits[labels == index].mean()) if (labels == index).any() else None
        for index, name in enumerate(split.classes)
    }
