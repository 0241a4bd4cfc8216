"""Hierarchical grouping: repeatedly merge the two most similar neighbours until one region is left (Uijlings, 3.1).

The similarity is a sum of up to four measures, each from 0 to 1 (section 3.2): the intersection of the colour
histograms, the intersection of the texture histograms, the fraction of the image outside the two regions (size), and
the fraction of the image outside the gap between the two regions and their joint box (fill).

Histograms are compared as integers, in units of 2**-24 of a region, and recomputed from the exact counts after every
merge, so that results do not depend on the order of summation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .compilation import inlined, kernel
from .heap import grown, pushed, remove_first
from .regions import COLOUR_BINS, Regions
from .texture import BINS, DIRECTIONS

_UNIT = 1 << 24
_PARTS = 2 * DIRECTIONS  # texture histograms per channel: positive and negative part of each direction


@dataclass(frozen=True)
class Measures:
    """The measures that are added up to a similarity, with equal weights."""

    colour: bool = False
    texture: bool = False
    size: bool = False
    fill: bool = False


FAST = (Measures(colour=True, texture=True, size=True, fill=True), Measures(texture=True, size=True, fill=True))
QUALITY = (*FAST, Measures(fill=True), Measures(size=True))
"""OpenCV's choices in fast and quality mode."""


def grouped(regions: Regions, pixels: int, measures: Measures) -> npt.NDArray[np.int32]:
    """Compute the boxes of all regions in the hierarchy.

    Args:
        regions: the initial regions.
        pixels: number of pixels in the image.
        measures: measures that make up the similarity.

    Returns:
        int32 (M, 4), minimum x and y, maximum x and y: first the boxes of `regions`, then of each merge in order.
    """
    chosen = (measures.colour, measures.texture, measures.size, measures.fill)
    boxes: npt.NDArray[np.int32] = group(
        regions.size, regions.box, regions.counts, regions.neighbours, pixels, np.array(chosen, np.int64)
    )
    return boxes


@kernel("void(int32[::1], int32[::1], int64)")
def scale_counts(scaled: Any, counts: Any, size: int) -> None:
    """Normalise the counts of a region by its size, in units of 2**-24."""
    unit = _UNIT / np.float64(size)
    for i in range(len(counts)):
        scaled[i] = np.int32(np.float64(counts[i]) * unit)


@kernel("int64(int32[::1], int32[::1])")
def intersection(first: Any, second: Any) -> Any:
    """Sum of the element-wise minimum; below 2**31."""
    total = np.int32(0)
    for i in range(len(first)):
        total += min(first[i], second[i])
    return total


@inlined
def similarity(
    scaled: Any, size: Any, box: Any, row: Any, a: Any, b: Any, pixels: Any, colours: Any, chosen: Any
) -> Any:
    """Similarity of two regions, up to a constant, in units of 1 / (8 * C * 2**24)."""
    first, second = scaled[row[a]], scaled[row[b]]
    channels = colours // COLOUR_BINS
    total = np.int64(0)
    if chosen[0]:
        total += _PARTS * intersection(first[:colours], second[:colours])
    if chosen[1]:
        total += intersection(first[colours:], second[colours:])
    width = max(box[a, 2], box[b, 2]) - min(box[a, 0], box[b, 0]) + 1
    height = max(box[a, 3], box[b, 3]) - min(box[a, 1], box[b, 1]) + 1
    together = np.int64(size[a]) + np.int64(size[b])
    lost = chosen[3] * (np.int64(width) * np.int64(height) - together) + chosen[2] * together
    return total - _PARTS * channels * _UNIT * lost // pixels


@kernel("Tuple((int64[::1], int64[::1], int32[::1]))(int32[:,::1], int64)")
def adjacency(pairs: Any, number: int) -> tuple[Any, Any, Any]:
    """Build one list of all neighbours, with the start and end of each region's, leaving room for merged regions."""
    start, stop = np.zeros(2 * number, np.int64), np.zeros(2 * number, np.int64)
    for i in range(len(pairs)):
        stop[pairs[i, 0]] += 1
        stop[pairs[i, 1]] += 1
    used = 0
    for r in range(number):
        start[r] = used
        used += stop[r]
        stop[r] = start[r]
    near = np.empty(4 * used + 1, np.int32)
    for i in range(len(pairs)):
        a, b = pairs[i, 0], pairs[i, 1]
        near[stop[a]], near[stop[b]] = b, a
        stop[a] += 1
        stop[b] += 1
    return start, stop, near


@inlined
def current(into: Any, r: Any) -> Any:
    """Return the region that now contains region r, and shorten the way to it (path halving)."""
    while into[r] >= 0:
        if into[into[r]] >= 0:
            into[r] = into[into[r]]
        r = into[r]
    return r


@inlined
def join(size: Any, box: Any, row: Any, counts: Any, scaled: Any, a: Any, b: Any, new: Any) -> None:
    """Fill in size, box and histograms of the new region that contains a and b; it takes over the histograms of a."""
    size[new] = size[a] + size[b]
    box[new, 0], box[new, 1] = min(box[a, 0], box[b, 0]), min(box[a, 1], box[b, 1])
    box[new, 2], box[new, 3] = max(box[a, 2], box[b, 2]), max(box[a, 3], box[b, 3])
    row[new] = row[a]
    if counts.shape[1]:
        total, other = counts[row[a]], counts[row[b]]
        for i in range(len(total)):
            total[i] += other[i]
        scale_counts(scaled[row[new]], total, size[new])


@kernel("int32[:,::1](int32[::1], int32[:,::1], int32[:,::1], int32[:,::1], int64, int64[::1])")
def group(first_size: Any, first_box: Any, first_counts: Any, pairs: Any, pixels: int, chosen: Any) -> Any:
    """Kernel of `grouped`; `chosen` gives the weights (0 or 1) of colour, texture, size and fill."""
    number, columns = first_counts.shape
    colours = columns // (COLOUR_BINS + _PARTS * BINS) * COLOUR_BINS
    regions = 2 * number
    size, box = np.zeros(regions, np.int32), np.zeros((regions, 4), np.int32)
    size[:number], box[:number] = first_size, first_box
    counts = first_counts.copy() if chosen[0] + chosen[1] > 0 else np.zeros((number, 0), np.int32)
    scaled = np.zeros_like(counts)
    row = np.empty(regions, np.int32)  # row of a region's histograms; a merged region reuses a row of its parts
    into = np.full(regions, -1, np.int32)  # the region that each one was merged into
    seen = np.full(regions, -1, np.int32)  # the last merged region that has each one as a neighbour
    for r in range(number):
        row[r] = r
        scale_counts(scaled[r], counts[r], size[r])
    # near[start[r] : stop[r]] are the neighbours of r when it was created; later merges are resolved through `into`.
    start, stop, near = adjacency(pairs, number)
    used = 2 * len(pairs)
    key, item = np.empty(4 * len(pairs) + 1, np.int64), np.empty(4 * len(pairs) + 1, np.int64)
    waiting = 0
    for i in range(len(pairs)):
        a, b = pairs[i, 0], pairs[i, 1]
        alike = similarity(scaled, size, box, row, a, b, pixels, colours, chosen)
        key, item = pushed(key, item, waiting, alike, np.int64(a) * regions + b)
        waiting += 1
    new = number
    while waiting > 0:
        pair = remove_first(key, item, waiting)
        waiting -= 1
        a, b = pair // regions, pair % regions
        if into[a] >= 0 or into[b] >= 0:
            continue  # one of the two has been merged since
        into[a], into[b] = new, new
        join(size, box, row, counts, scaled, a, b, new)
        near = grown(near, used + stop[a] - start[a] + stop[b] - start[b])
        start[new] = used
        for part in (a, b):
            for i in range(start[part], stop[part]):
                r = current(into, near[i])
                if r == new or seen[r] == new:
                    continue
                seen[r] = new
                near[used] = r
                used += 1
                alike = similarity(scaled, size, box, row, new, r, pixels, colours, chosen)
                key, item = pushed(key, item, waiting, alike, np.int64(new) * regions + r)
                waiting += 1
        stop[new] = used
        new += 1
    return box[:new].copy()
