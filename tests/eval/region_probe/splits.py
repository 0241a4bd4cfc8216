"""Boxed images without pictures, for tests of counts."""

import numpy as np
from ccop_eval.region_probe.coco_boxes import BoxedImages


def make_split(counts, classes=3):
    generator = np.random.default_rng(0)
    return BoxedImages(
        annotations=None,
        classes=[f"c{index}" for index in range(classes)],
        paths=[f"{index}.png" for index in range(len(counts))],
        boxes=[np.zeros((count, 4), dtype=np.float32) for count in counts],
        labels=[generator.integers(0, classes, count) for count in counts],
        areas=[generator.choice([100.0, 1024.0, 9215.9, 9216.0], count) for count in counts],
    )
