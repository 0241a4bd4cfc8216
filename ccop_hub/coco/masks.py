"""Parse the masks of COCO annotations: polygons or run-length encodings (RLE)."""

from __future__ import annotations

import ast
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from .findings import Kind
from .values import WrongValueError, number, shown

Polygons = list[list[float]]
RunLengths = dict[str, Any]
"""`size` [height, width] and `counts`: run lengths, as a list or as pycocotools' compressed string."""

Mask = Polygons | RunLengths
Box = tuple[float, float, float, float]
"""x, y, width, height in absolute pixels."""

_FEWEST = 6
"""Coordinates of a triangle; pycocotools treats lists of four as boxes."""

_NUMBERS = frozenset((float, int))

_TOLERANCE = 1.0
"""Pixels by which a polygon may extend past its image without being clipped; COCO's own polygons do."""


def read_mask(value: Any, size: tuple[int, int] | None, box: Box, met: list[Kind]) -> Mask | None:
    """Read a `segmentation` the way pycocotools and Detectron2 do.

    Args:
        value: the annotation's `segmentation`, or None if absent.
        size: image width and height, or None if unknown.
        box: the object's box, used to detect run lengths with height and width swapped.
        met: list to which the problems found are appended.

    Returns:
        Polygons of at least three points, run lengths that cover the image exactly, or None if there is no mask.

    Raises:
        WrongValueError: the value is neither polygons nor run lengths, or contains a non-finite number.
    """
    if not value:
        return None
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0]
        met.append(Kind.RUN_LENGTHS)
    if isinstance(value, dict):
        return _run_lengths(value, size, box, met)
    if not isinstance(value, list):
        raise WrongValueError(f"segmentation {shown(value)} is neither a list of polygons nor an RLE mask")
    polygons = _nested(value, met)
    kept = []
    for polygon in polygons:
        if len(polygon) % 2 or len(polygon) < _FEWEST:
            if polygon:
                met.append(Kind.BAD_POLYGON)
            continue
        clipped = _clip(polygon, size)
        if clipped is not polygon:
            met.append(Kind.POLYGON_CLIPPED)
        if clipped:
            kept.append(clipped)
    return kept or None


def mask_area(mask: Mask) -> float:
    """Return the area in square pixels: the sum of polygon areas, or the number of foreground pixels."""
    if isinstance(mask, dict):
        return float(sum(_counts(mask)[1::2]))
    return sum(_polygon_area(polygon) for polygon in mask)


def _polygon_area(polygon: list[float]) -> float:
    xs, ys = polygon[::2], polygon[1::2]
    pairs = zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
    return abs(sum(x * next_y - next_x * y for x, y, next_x, next_y in pairs)) / 2


def _nested(value: list[Any], met: list[Kind]) -> Polygons:
    """Convert polygons of any nesting depth to a list of flat coordinate lists."""
    if all(type(part) is list and _NUMBERS.issuperset(map(type, part)) for part in value):
        if len(value) * 2 >= _FEWEST and all(len(part) == 2 for part in value):  # points
            met.append(Kind.FLAT_POLYGON)
            return [_numbers(list(itertools.chain.from_iterable(value)), met)]
        return [_numbers(part, met) for part in value]
    if not any(isinstance(part, list) for part in value):  # one polygon without its list
        met.append(Kind.FLAT_POLYGON)
        return [_numbers(value, met)]
    polygons = []
    for part in value:
        if part is None:
            continue
        if not isinstance(part, list):
            raise WrongValueError(f"segmentation contains {shown(part)}, which is not a polygon")
        if part and all(isinstance(point, list) for point in part):  # a polygon of points
            if any(len(point) != 2 for point in part):
                raise WrongValueError(f"segmentation {shown(part)} is nested too deeply")
            met.append(Kind.FLAT_POLYGON)
            part = list(itertools.chain.from_iterable(part))
        polygons.append(_numbers(part, met))
    return polygons


def _numbers(values: list[Any], met: list[Kind]) -> list[float]:
    """Convert values to finite floats. Checking their sum first is much faster than checking each value."""
    if _NUMBERS.issuperset(map(type, values)):
        total = sum(values)
        if -1e15 < total < 1e15:
            return values
    elif any(isinstance(value, str) for value in values):
        met.append(Kind.TEXT_NUMBER)
    return [number(value) for value in values]


def _clip(polygon: list[float], size: tuple[int, int] | None) -> list[float]:
    """Clip a polygon to its image (Sutherland and Hodgman 1974) if it extends past it by more than the tolerance."""
    if size is None:
        return polygon
    xs, ys = polygon[::2], polygon[1::2]
    width, height = size
    if (
        min(xs) >= -_TOLERANCE
        and min(ys) >= -_TOLERANCE
        and max(xs) <= width + _TOLERANCE
        and max(ys) <= height + _TOLERANCE
    ):
        return polygon
    points = list(zip(xs, ys, strict=True))
    for axis, edge, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        points = _clip_at(points, axis, edge, sign)
    return [float(value) for point in points for value in point] if len(points) >= 3 else []


def _clip_at(points: list[tuple[float, float]], axis: int, edge: float, sign: int) -> list[tuple[float, float]]:
    kept: list[tuple[float, float]] = []
    for before, point in zip(points[-1:] + points[:-1], points, strict=True):
        inside, was_inside = sign * (point[axis] - edge) >= 0, sign * (before[axis] - edge) >= 0
        if inside != was_inside:
            share = (edge - before[axis]) / (point[axis] - before[axis])
            other = before[1 - axis] + share * (point[1 - axis] - before[1 - axis])
            kept.append((edge, other) if axis == 0 else (other, edge))
        if inside:
            kept.append(point)
    return kept


def _run_lengths(value: dict[str, Any], size: tuple[int, int] | None, box: Box, met: list[Kind]) -> RunLengths | None:
    """Read run lengths; None if they do not cover the image exactly."""
    given = value.get("counts")
    counts = _parse_counts(given)
    if counts is None or not counts or min(counts) < 0:
        met.append(Kind.BAD_MASK)
        return None
    try:
        height, width = (int(number(side)) for side in value["size"])
    except (KeyError, TypeError, ValueError):
        height, width = (size[1], size[0]) if size is not None else (0, 0)
    if size is not None and (width, height) != size:
        if (height, width) != size:
            met.append(Kind.BAD_MASK)
            return None
        # Height and width may be swapped: use the column height for which the mask best overlaps its box.
        if _overlap(_bounds(counts, width), box) >= _overlap(_bounds(counts, height), box):
            height, width = width, height
    if (size is not None and (width, height) != size) or sum(counts) != height * width or not counts:
        met.append(Kind.BAD_MASK)
        return None
    text = given if isinstance(given, str) and not given.startswith(("b'", 'b"')) else None
    kept: RunLengths = {"size": [height, width], "counts": counts if text is None else text}
    if (text is None and kept["counts"] is not given) or kept["size"] != value.get("size"):
        met.append(Kind.RUN_LENGTHS)
    return kept


def _parse_counts(given: Any) -> list[int] | None:
    if isinstance(given, list):
        if all(type(count) is int for count in given):
            return given
        try:
            found = [number(count) for count in given]
        except WrongValueError:
            return None
        return [int(count) for count in found] if all(count == int(count) for count in found) else None
    if isinstance(given, str):
        text = given
        if text.startswith(("b'", 'b"')):  # the repr of a bytes object
            try:
                text = ast.literal_eval(text).decode("ascii")
            except (ValueError, SyntaxError, AttributeError):
                return None
        return decode_counts(text)
    return None


def decode_counts(text: str) -> list[int] | None:
    """Decode pycocotools' compressed RLE (maskApi.c, rleFrString): 6 bits per character, deltas from the third run on.

    Returns:
        The run lengths, or None if the text is malformed.
    """
    counts: list[int] = []
    place, length = 0, len(text)
    while place < length:
        value = shift = 0
        while True:
            if place >= length or shift > 60:
                return None
            bits = ord(text[place]) - 48
            if not 0 <= bits < 64:
                return None
            place += 1
            value |= (bits & 0x1F) << shift
            shift += 5
            if not bits & 0x20:
                if bits & 0x10:
                    value -= 1 << shift
                break
        if len(counts) > 2:
            value += counts[-2]
        if value < 0:
            return None
        counts.append(value)
    return counts


def _counts(mask: RunLengths) -> list[int]:
    counts = mask["counts"]
    return counts if isinstance(counts, list) else decode_counts(counts) or []


def to_pixels(mask: RunLengths) -> npt.NDArray[np.bool_]:
    """Decode validated, column-major run lengths to a (height, width) bool mask."""
    counts = _counts(mask)
    height, width = mask["size"]
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def from_pixels(pixels: npt.NDArray[np.bool_]) -> RunLengths:
    """Encode a (height, width) bool mask as run lengths."""
    flat = np.concatenate(([False], pixels.T.ravel()))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate(([0], changes, [pixels.size])))
    return {"size": list(pixels.shape), "counts": counts.tolist()}


def _bounds(counts: list[int], height: int) -> Box:
    """Return the bounding box of the foreground pixels, for columns of the given height."""
    ends = np.cumsum(np.asarray(counts, dtype=np.float64))
    starts, stops = ends[0::2][: len(counts) // 2], ends[1::2]
    some = stops > starts
    if not some.any() or height < 1:
        return 0.0, 0.0, 0.0, 0.0
    starts, last = starts[some], stops[some] - 1
    left, right = starts[0] // height, last[-1] // height + 1
    whole = last // height > starts // height
    top = 0.0 if whole.any() else (starts % height).min()
    bottom = float(height) if whole.any() else (last % height).max() + 1
    return float(left), float(top), float(right - left), float(bottom - top)


def _overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    union = one[2] * one[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else 0.0
