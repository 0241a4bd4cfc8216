"""A fast selective search (Uijlings et al. 2013): OpenCV's algorithm and constants, at least ten times as fast.

    colour_spaces -> texture, segmentation -> regions -> grouping

The image is converted to two colour spaces (five in quality mode) and each is segmented at three scales (or five). The
regions of each segmentation are then merged pair by pair, under two similarities (or four), and the boxes of all
regions, initial and merged, are the proposals. The speed has two sources. Work that depends only on the colour space is
shared between scales: sorting edges, the first half of the segmentation, gradients and histograms. And each step only
looks at neighbouring pixels or neighbouring regions.

The kernels are compiled by Numba on first use, once for all processes: see `compilation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

VERSION = 1
"""Bumped whenever the boxes of any image change."""

FAST_SCALES = (150.0, 300.0, 450.0)
QUALITY_SCALES = (*FAST_SCALES, 600.0, 750.0)
"""Values of Felzenszwalb's k in OpenCV's fast and quality modes."""


def search(image: npt.NDArray[np.uint8], mode: Literal["fast", "quality"] = "fast") -> npt.NDArray[np.int32]:
    """Run selective search on an image.

    Args:
        image: uint8 (H, W, 3), RGB, any size from 1 x 1.
        mode: `fast`, or `quality` for more colour spaces, scales and similarities.

    Returns:
        int32 (N, 4), unique x, y, width, height in pixels, sorted by these four numbers.
    """
    corners = np.concatenate(list(_hierarchies(np.require(image, requirements=("C", "W")), mode == "quality")))
    boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2] + 1), axis=1)
    boxes = boxes[np.lexsort(boxes.T[::-1])]
    different = np.ones(len(boxes), dtype=bool)
    different[1:] = (boxes[1:] != boxes[:-1]).any(axis=1)
    found: npt.NDArray[np.int32] = boxes[different]
    return found


def _hierarchies(image: npt.NDArray[np.uint8], quality: bool) -> Iterator[npt.NDArray[np.int32]]:
    # Importing the kernels loads Numba and compiles them, so import them only for a search.
    from .compilation import load_kernels

    load_kernels()
    from . import colour_spaces, grouping, regions, segmentation, texture

    for colours in colour_spaces.colour_images(image, quality):
        # Compute gradients before labels, and free both after the histograms: each takes 25 MB at two megapixels.
        bins = texture.texture_bins(colours)
        labels, numbers = segmentation.segment(colours, QUALITY_SCALES if quality else FAST_SCALES)
        described = regions.describe(labels, numbers, colours, bins)
        del colours, bins, labels
        for start in described:
            for measures in grouping.QUALITY if quality else grouping.FAST:
                yield grouping.grouped(start, image.shape[0] * image.shape[1], measures)
