"""Match the boxes of a COCO JSON with the images of a source: by file name, size and orientation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..coco.boxes import TOLERANCE
from ..coco.file_names import find_file
from ..coco.findings import Findings, Kind
from ..coco.orientation import turn_box
from ..coco.reading import read_images
from ..errors import UserError
from ..images import ImageHeader, UnreadableImageError, decode_header, read_header
from .stored_images import ImageSource, StoredImage

Boxes = npt.NDArray[np.float32]
"""(N, 4) xyxy, in absolute pixels."""


def match_listing(source: ImageSource, path: Path) -> tuple[npt.NDArray[np.int32], dict[int | str, int]]:
    """Return (N, 2) width and height by image index (-1: not listed, 0: no size), and the index of each COCO id."""
    sizes = np.full((len(source), 2), -1, dtype=np.int32)
    numbers: dict[int | str, int] = {}
    loosely: dict[int, str] = {}  # images whose file name does not match literally
    for entry in read_images(path):
        literal = source.keys.find(entry.file_name)
        index = literal if literal is not None else _find(source, entry.file_name)
        if index is None:
            continue
        other = loosely.get(index, source.keys[index] if sizes[index, 0] >= 0 else entry.file_name)
        if other != entry.file_name:
            raise UserError(
                f"{path} lists {other} and {entry.file_name}, which both match {source.keys[index]}; "
                "file_name must be the path relative to the images"
            )
        if literal is None:
            loosely[index] = entry.file_name
        if numbers.setdefault(entry.id, index) != index:
            raise UserError(f"{path} has two images with id {entry.id}; give each image a unique id")
        sizes[index] = entry.width or 0, entry.height or 0
    if not numbers:
        raise UserError(
            f"none of the images of {path} is among the {len(source)} of {source.name!r} (first: {source.keys[0]}); "
            "file_name must be the path relative to the images"
        )
    return sizes, numbers


def _find(source: ImageSource, name: str) -> int | None:
    found = find_file(name, lambda key: source.keys.find(key) is not None)
    return None if found is None else source.keys.find(found)


class SizeError(Exception):
    """The image's size cannot be determined; the message says why."""


_Turn = Callable[[Boxes], Boxes]


def true_size(image: StoredImage, listed: tuple[int, int] | None, findings: Findings) -> tuple[tuple[int, int], _Turn]:
    """Return the width and height of the upright image, and the function that rotates its boxes upright.

    Raises:
        SizeError: the file's size differs from the listed one, or neither gives a size.
    """
    try:
        if image.length is None:
            header = read_header(image.path)
        else:
            header = decode_header(BytesIO(image.read_bytes()), image.path)
    except UnreadableImageError:
        # Ignore the damage here; it is reported when the pixels are read.
        if listed is None:
            raise SizeError("has no size of it, and neither has its file") from None
        return listed, _as_it_is
    if listed == header.upright:
        return header.upright, _as_it_is
    if listed is None:
        findings.add(Kind.SIZE, image.key)
    elif listed == header.stored:
        findings.add(Kind.ROTATED, image.key)
        return header.upright, functools.partial(_turned, header)
    elif listed == header.upright[::-1]:
        findings.add(Kind.SWAPPED_SIZE, image.key)
    else:
        raise SizeError(
            f"lists it with {listed[0]} x {listed[1]} pixels, but it has {header.upright[0]} x {header.upright[1]}"
        )
    return header.upright, _as_it_is


def _as_it_is(boxes: Boxes) -> Boxes:
    return boxes


def _turned(header: ImageHeader, boxes: Boxes) -> Boxes:
    """Rotate xyxy boxes upright with their image, unless they only fit the image that is already upright."""
    far = boxes[:, 2:].max(axis=0, initial=0)
    if (far > np.add(header.stored, 1)).any() and (far <= np.add(header.upright, 1)).all():
        return boxes
    turned = np.zeros_like(boxes)
    for place, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        x, y, width, height = turn_box((x1, y1, x2 - x1, y2 - y1), header.orientation, header.stored)
        turned[place] = x, y, x + width, y + height
    return turned


def overhanging_boxes(boxes: Boxes, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Mark the boxes that exceed an image of (width, height) by more than rounding error: (N,) bool."""
    edges = np.tile(np.asarray(size, dtype=np.float32), 2)
    return np.asarray(((boxes < -TOLERANCE) | (boxes > edges + TOLERANCE)).any(axis=1))


def boxes_inside(image: str, boxes: Boxes, size: tuple[int, int], findings: Findings) -> Boxes:
    """Clip boxes to their image, dropping those entirely outside it."""
    edges = np.tile(np.asarray(size, dtype=np.float32), 2)
    clipped: Boxes = np.clip(boxes, 0, edges)
    kept = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    over = int((overhanging_boxes(boxes, size) & kept).sum())
    for kind, count in ((Kind.BOX_CLIPPED, over), (Kind.BOX_OUTSIDE, int((~kept).sum()))):
        if count:
            findings.add(kind, image, count)
    return clipped[kept]
