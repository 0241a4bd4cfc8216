"""Rotate boxes and masks according to the EXIF orientation of the image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .masks import Box, Mask, from_pixels, to_pixels

_Pixels = npt.NDArray[np.bool_]

_POINTS: dict[int, Callable[[float, float, int, int], tuple[float, float]]] = {
    5: lambda x, y, width, height: (y, x),
    6: lambda x, y, width, height: (height - y, x),
    7: lambda x, y, width, height: (height - y, width - x),
    8: lambda x, y, width, height: (y, width - x),
}
"""EXIF orientation -> function that maps a point in the stored image to the upright one (EXIF 2.32, tag 0x0112)."""

_PIXELS: dict[int, Callable[[_Pixels], _Pixels]] = {
    5: lambda pixels: pixels.T,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).T,
    8: lambda pixels: np.rot90(pixels, 1),
}


def turn_box(box: Box, orientation: int, stored: tuple[int, int]) -> Box:
    """Map a box from the stored image to the upright one.

    Args:
        box: x, y, width, height in pixels.
        orientation: EXIF orientation, 5 to 8.
        stored: width and height of the stored image.
    """
    turn = _POINTS[orientation]
    (x1, y1), (x2, y2) = turn(box[0], box[1], *stored), turn(box[0] + box[2], box[1] + box[3], *stored)
    return min(x1, x2), min(y1, y2), box[3], box[2]


def turn_mask(mask: Mask, orientation: int, stored: tuple[int, int]) -> Mask:
    """Map a mask from the stored image to the upright one; takes the arguments of `turn_box`."""
    if isinstance(mask, dict):
        return from_pixels(_PIXELS[orientation](to_pixels(mask)))
    turn = _POINTS[orientation]
    return [
        [value for x, y in zip(polygon[::2], polygon[1::2], strict=True) for value in turn(x, y, *stored)]
        for polygon in mask
    ]
