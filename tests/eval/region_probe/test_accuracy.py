import math

import numpy as np
import pytest
from ccop_eval.region_probe.accuracy import accuracy_statistic, class_accuracy

from .splits import make_split


def test_accuracies_equal_a_slow_count_over_drawn_images():
    split = make_split([3, 1, 4, 2])
    hits = np.random.default_rng(1).random(10) < 0.5
    statistic = accuracy_statistic(split, {"knn": hits})
    bounds = {"": (0, math.inf), "small/": (0, 1024), "medium/": (1024, 9216), "large/": (9216, math.inf)}
    for draw in ([1, 1, 1, 1], [2, 0, 1, 1], [0, 3, 0, 1]):
        drawn = []
        for image, times in enumerate(draw):
            first = sum(len(boxes) for boxes in split.boxes[:image])
            for number, (label, area) in enumerate(zip(split.labels[image], split.areas[image], strict=True)):
                drawn += [(int(label), float(area), bool(hits[first + number]))] * times
        values = statistic(np.array(draw))
        for group, (low, high) in bounds.items():
            members = [(label, hit) for label, area, hit in drawn if low <= area < high]
            by_class = {label: [hit for other, hit in members if other == label] for label, _ in members}
            expected = 100 * np.mean([hit for _, hit in members]) if members else math.nan
            mean = 100 * np.mean([np.mean(values) for values in by_class.values()]) if members else math.nan
            assert values[f"knn/{group}overall"] == pytest.approx(expected, nan_ok=True)
            assert values[f"knn/{group}mean_class"] == pytest.approx(mean, nan_ok=True)
    assert class_accuracy(split, np.ones(10, dtype=bool))["c0"] == 100.0
