"""Selective search (Uijlings et al. 2013) of our own: OpenCV's algorithm and constants, ten times as fast and more.

    colour_spaces -> texture, segmentation -> regions -> grouping

An image is converted into two colour spaces, or five; each is segmented at three scales, or five; and the regions of
each segmentation are merged pair by pair, under two similarities, or four. The boxes of all regions that ever were are
the proposals. Two things decide the time. What depends on the colour space alone is done once for all scales: sorting
edges, the first half of the segmentation, gradients, and histograms. And no step depends on more than the pixels near a
pixel or the regions near a region.

The kernels are compiled by Numba on first use, once for all processes: see `compilation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

VERSION = 1
"""Changes whenever the boxes of any image do."""

FAST_SCALES = (150.0, 300.0, 450.0)
QUALITY_SCALES = (*FAST_SCALES, 600.0, 750.0)
"""Felzenszwalb's k in OpenCV's fast and quality mode."""


def search(image: npt.NDArray[np.uint8], mode: Literal["fast", "quality"] = "fast") -> npt.NDArray[np.int32]:
    """All boxes that the search finds.

    Args:
        image: uint8 (H, W, 3), RGB, any size from 1 x 1.
        mode: `fast` or `quality`: more colour spaces, scales and similarities.

    Returns:
        int32 (N, 4), x, y, width, height in pixels, all different, sorted by these four numbers.
    """
    corners = np.concatenate(list(_hierarchies(np.require(image, requirements=("C", "W")), mode == "quality")))
    boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2] + 1), axis=1)
    boxes = boxes[np.lexsort(boxes.T[::-1])]
    different = np.ones(len(boxes), dtype=bool)
    different[1:] = (boxes[1:] != boxes[:-1]).any(axis=1)
    found: npt.NDArray[np.int32] = boxes[different]
    return found


def _hierarchies(image: npt.NDArray[np.uint8], quality: bool) -> Iterator[npt.NDArray[np.int32]]:
    # Imported here, because only searching should pay for Numba, and because the kernels load when they are imported.
    from .compilation import load_kernels

    load_kernels()
    from . import colour_spaces, grouping, regions, segmentation, texture

    for colours in colour_spaces.colour_images(image, quality):
        # Gradients come before labels, and neither outlives the histograms: at two megapixels each takes 25 MB.
        bins = texture.texture_bins(colours)
        labels, numbers = segmentation.segment(colours, QUALITY_SCALES if quality else FAST_SCALES)
        described = regions.describe(labels, numbers, colours, bins)
        del colours, bins, labels
        for start in described:
            for measures in grouping.QUALITY if quality else grouping.FAST:
                yield grouping.grouped(start, image.shape[0] * image.shape[1], measures)
