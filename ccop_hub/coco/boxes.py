"""Parse annotation boxes, fix negative sizes and clip boxes to the image."""

from __future__ import annotations

from typing import Any

from .findings import Kind
from .masks import Box
from .values import WrongValueError, number, shown

TOLERANCE = 1.0
"""Pixels by which a box may extend past its image without being clipped; COCO's own boxes do, due to rounding."""


def read_box(value: Any, size: tuple[int, int] | None, met: list[Kind]) -> Box | None:
    """Read a `bbox` (x, y, width, height in absolute pixels).

    Args:
        value: the annotation's `bbox`.
        size: image width and height, or None if unknown.
        met: list to which the problems found are appended.

    Returns:
        The box, or None to drop the object, with the reason as the last entry of `met`.

    Raises:
        WrongValueError: the value is not four finite numbers.
    """
    if type(value) is not list or len(value) != 4:
        what = "there is no bbox" if value is None else f"bbox {shown(value)}"
        raise WrongValueError(f"{what}; it must be [x, y, width, height]")
    try:
        x, y, width, height = map(number, value)
    except WrongValueError as error:
        raise WrongValueError(f"bbox {shown(value)}: {error}") from None
    if any(isinstance(part, str) for part in value):
        met.append(Kind.TEXT_NUMBER)
    if width < 0 or height < 0:
        met.append(Kind.NEGATIVE_SIDE)
        x, width = (x, width) if width >= 0 else (x + width, -width)
        y, height = (y, height) if height >= 0 else (y + height, -height)
    if width == 0 or height == 0:
        met.append(Kind.BOX_WITHOUT_AREA)
        return None
    if size is not None:
        right, bottom = size
        if x >= right or y >= bottom or x + width <= 0 or y + height <= 0:
            met.append(Kind.BOX_OUTSIDE)
            return None
        over = TOLERANCE
        if x < -over or y < -over or x + width > right + over or y + height > bottom + over:
            met.append(Kind.BOX_CLIPPED)
            x, y, width, height = clip(x, y, width, height, size)
    return x, y, width, height


def clip(x: float, y: float, width: float, height: float, size: tuple[int, int]) -> Box:
    """Clip a box to an image of size (width, height)."""
    left, top = max(x, 0), max(y, 0)
    return left, top, min(x + width, size[0]) - left, min(y + height, size[1]) - top
