"""Describe the regions of an image's segmentations: sizes, boxes, neighbours, and colour and texture histograms.

The segmentations at different scales share most of their outlines. Pixels are therefore counted once, in cells that no
outline at any scale crosses, and the counts of each cell are then added to one region per scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .compilation import kernel
from .texture import BINS, JOINT_BINS

COLOUR_BINS = 25  # per channel
_CELLS = 2048  # cells buffered before their counts are added to the regions: 2 to 3 MB


@dataclass(frozen=True)
class Regions:
    """The N regions of one segmentation.

    Attributes:
        size: int32 (N,), in pixels.
        box: int32 (N, 4), minimum x and y, maximum x and y.
        counts: int32 (N, 105 * C), pixels in each bin: `COLOUR_BINS` per channel, then for each direction and channel
            `BINS` for the positive and `BINS` for the negative part of the gradient.
        neighbours: int32 (M, 2), unique pairs of touching regions.
    """

    size: npt.NDArray[np.int32]
    box: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    neighbours: npt.NDArray[np.int32]


def describe(
    labels: npt.NDArray[np.int32],
    numbers: Sequence[int],
    image: npt.NDArray[np.uint8],
    bins: npt.NDArray[np.uint8],
) -> list[Regions]:
    """Describe the regions of every segmentation of an image.

    Args:
        labels: int32 (S, H, W), region index of each pixel.
        numbers: number of regions in each segmentation.
        image: uint8 (H, W, C), C-contiguous.
        bins: output of `texture.texture_bins`.
    """
    first = np.concatenate(([0], np.cumsum(numbers)))
    flat = labels.reshape(len(labels), -1)
    counts = histograms(flat, first, image.reshape(flat.shape[1], -1), bins)
    described = []
    for label, start, stop in zip(labels, first[:-1], first[1:], strict=True):
        described.append(Regions(*outlines(label, stop - start), counts[start:stop], neighbours(label, stop - start)))
    return described


@kernel("void(int32[:,::1], int32[:,::1], int64[::1], int64, int32[:,::1], int64[::1])")
def add_cells(counts: Any, cells: Any, home: Any, used: int, labels: Any, first: Any) -> None:
    """Add each cell's counts to its region at every scale, then clear them."""
    for cell in range(used):
        for s in range(len(labels)):
            target = counts[first[s] + labels[s, home[cell]]]
            for j in range(cells.shape[1]):
                target[j] += cells[cell, j]
        cells[cell] = 0


@kernel("void(int32[:,::1], int64)")
def part_bins(counts: Any, start: int) -> None:
    """Split the joint bins from column `start` on into bins of the positive and the negative part, in place."""
    for row in counts:
        for o in range(start, len(row), JOINT_BINS):
            negative = row[o : o + BINS].copy()
            positive = row[o + BINS : o + JOINT_BINS].copy()
            row[o : o + BINS], row[o + BINS : o + JOINT_BINS] = positive, negative
            row[o] += negative.sum()
            row[o + JOINT_BINS - 1] += positive.sum()


@kernel("int32[:,::1](int32[:,::1], int64[::1], uint8[:,::1], uint8[:,::1])")
def histograms(labels: Any, first: Any, image: Any, bins: Any) -> Any:
    """Count the bins of all regions, stacked over segmentations; `first` gives the first row of each segmentation."""
    scales, pixels = labels.shape
    channels, textures = image.shape[1], bins.shape[1]
    columns = COLOUR_BINS * channels + JOINT_BINS * textures
    counts = np.zeros((first[scales], columns), np.int32)
    cells = np.zeros((_CELLS, columns), np.int32)
    home = np.empty(_CELLS, np.int64)  # one pixel of each cell
    used = 0
    slots = np.full(4 * _CELLS, -1, np.int32)  # hash table with open addressing: labels -> cell
    cell = cells[0]
    for i in range(pixels):
        same = i > 0
        for s in range(scales):
            same = same and labels[s, i] == labels[s, i - 1]
        if not same:
            mixed = np.uint64(0)
            for s in range(scales):
                mixed = (mixed ^ np.uint64(labels[s, i])) * np.uint64(0x9E3779B97F4A7C15)
            slot = np.int64(mixed >> np.uint64(40)) % len(slots)
            while slots[slot] >= 0:
                there = home[slots[slot]]
                found = True
                for s in range(scales):
                    found = found and labels[s, there] == labels[s, i]
                if found:
                    break
                slot = (slot + 1) % len(slots)
            if slots[slot] < 0 and used == _CELLS:
                add_cells(counts, cells, home, used, labels, first)
                slots[:] = -1
                used = 0
                slot = np.int64(mixed >> np.uint64(40)) % len(slots)
            if slots[slot] < 0:
                slots[slot] = used
                home[used] = i
                used += 1
            cell = cells[slots[slot]]
        # Numba checks signed indices for negative values, so use unsigned ones.
        for c in range(channels):
            cell[np.uint32(c * COLOUR_BINS) + ((np.uint32(image[i, c]) * np.uint32(COLOUR_BINS)) >> np.uint32(8))] += 1
        for j in range(textures):
            cell[np.uint32(COLOUR_BINS * channels + j * JOINT_BINS) + np.uint32(bins[i, j])] += 1
    add_cells(counts, cells, home, used, labels, first)
    part_bins(counts, COLOUR_BINS * channels)
    return counts


@kernel("Tuple((int32[::1], int32[:,::1]))(int32[:,::1], int64)")
def outlines(label: Any, number: int) -> tuple[Any, Any]:
    """Compute the size and box of each region in one segmentation."""
    height, width = label.shape
    size = np.zeros(number, np.int32)
    box = np.empty((number, 4), np.int32)
    for r in range(number):
        box[r, 0], box[r, 1], box[r, 2], box[r, 3] = width, height, -1, -1
    for y in range(height):
        start = 0
        for x in range(1, width + 1):
            region = label[y, start]
            if x < width and label[y, x] == region:
                continue
            size[region] += x - start
            row = box[region]
            row[0], row[1] = min(row[0], start), min(row[1], y)
            row[2], row[3] = max(row[2], x - 1), max(row[3], y)
            start = x
    return size, box


@kernel("int32[:,::1](int32[:,::1], int64)")
def neighbours(label: Any, number: int) -> Any:
    """Find the pairs of regions that touch horizontally, vertically, or diagonally from upper left to lower right.

    As in OpenCV, pixels in the first row and column are not compared with preceding ones.
    """
    height, width = label.shape
    pairs = np.empty((3 * number + 1, 2), np.int32)  # planar graph: at most 3 edges per node
    used = 0
    slots = np.full(8 * number + 8, -1, np.int32)
    for y in range(1, height):
        for x in range(1, width):
            here = label[y, x]
            before = (label[y, x - 1], label[y - 1, x], label[y - 1, x - 1])
            if before[0] == here and before[1] == here and before[2] == here:
                continue
            for other in before:
                if other == here:
                    continue
                low, high = min(other, here), max(other, here)
                mixed = (np.uint64(low) * np.uint64(number) + np.uint64(high)) * np.uint64(0x9E3779B97F4A7C15)
                slot = np.int64(mixed >> np.uint64(32)) % len(slots)
                while slots[slot] >= 0 and (pairs[slots[slot], 0] != low or pairs[slots[slot], 1] != high):
                    slot = (slot + 1) % len(slots)
                if slots[slot] < 0:
                    slots[slot] = used
                    pairs[used, 0], pairs[used, 1] = low, high
                    used += 1
    return pairs[:used].copy()
