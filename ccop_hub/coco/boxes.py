"""The box of an annotation: read, put the right way round and kept inside its image."""

from __future__ import annotations

from typing import Any

from .findings import Kind
from .masks import Box
from .values import WrongValueError, number, shown

TOLERANCE = 1.0
"""Pixels by which a box may overhang its image and stay as it is; COCO's own do, by their rounding."""


def read_box(value: Any, size: tuple[int, int] | None, met: list[Kind]) -> Box | None:
    """A `bbox`: x, y, width, height in absolute pixels.

    Args:
        value: of the annotation.
        size: width and height of the image; None where they are unknown.
        met: kinds of oddities are appended to it.

    Returns:
        None where the object has to be dropped, which the last kind in `met` says.

    Raises:
        WrongValueError: not four finite numbers.
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
    """The part of a box inside its image of (width, height)."""
    left, top = max(x, 0), max(y, 0)
    return left, top, min(x + width, size[0]) - left, min(y + height, size[1]) - top
