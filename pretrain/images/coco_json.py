"""COCO's JSON read as a stream, and the authors' file of proposals written as one.

The file that the authors' script writes, and that their training reads, is a COCO JSON of one category:

    images       id, width, height, file_name; taken over from the data set's own instance JSON
    annotations  image_id, bbox [x, y, width, height] in pixels, category_id 1, id counted from 0
    categories   one: supercategory "RoI", id 1, name "RoI"

(OpenSelfSup CCOP, tools/selective_search.py and openselfsup/datasets/data_sources/coco_boxes.py.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import ijson
import numpy as np
import numpy.typing as npt

from ccop_hub.errors import UserError

PROPOSAL_CATEGORY = {"supercategory": "RoI", "id": 1, "name": "RoI"}
_READ_AT_ONCE = 1 << 16  # bytes; the entries in them are in memory together


@dataclass(frozen=True)
class CocoImage:
    """An entry of `images`; width and height in pixels, None where the file does not tell."""

    id: int
    file_name: str
    width: int | None
    height: int | None


@dataclass(frozen=True)
class CocoBox:
    """An entry of `annotations`; `box` is x, y, width, height in absolute pixels."""

    image_id: int
    category_id: int
    box: tuple[float, float, float, float]


def read_images(path: Path) -> Iterator[CocoImage]:
    """The images of a COCO JSON, in the file's order; memory does not grow with the file.

    Raises:
        UserError: no such file, no JSON, or not COCO's.
    """
    found = False
    for entry in _stream(path, "images"):
        found = True
        try:
            name, number = entry["file_name"], entry["id"]
            if not isinstance(name, str) or not isinstance(number, int):
                raise TypeError("file_name is a text and id a whole number")
            sides = [None if entry.get(side) is None else int(entry[side]) for side in ("width", "height")]
            yield CocoImage(number, name, *sides)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is not a COCO JSON: image entry {str(entry)[:80]} ({error!r})") from None
    if not found:
        raise UserError(f"{path} lists no images: give a COCO JSON (with `images` and `annotations`)")


def read_boxes(path: Path) -> Iterator[CocoBox]:
    """The boxes of a COCO JSON, in the file's order, crowds left out; memory does not grow with the file.

    Raises:
        UserError: no such file, no JSON, not COCO's, or a box that has no area or no finite corner.
    """
    for entry in _stream(path, "annotations"):
        try:
            if entry.get("iscrowd", 0):
                continue
            x, y, width, height = map(float, entry["bbox"])
            if not (np.isfinite((x, y, width, height)).all() and width > 0 and height > 0):
                raise ValueError("bbox is x, y, width > 0, height > 0")
            yield CocoBox(int(entry["image_id"]), int(entry.get("category_id", 0)), (x, y, width, height))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            shown = {key: entry.get(key) for key in ("id", "image_id", "bbox")} if isinstance(entry, dict) else entry
            raise UserError(f"{path} is not a COCO JSON: annotation {shown} ({error!r})") from None


def write_proposals(
    file: TextIO, images: Iterable[CocoImage], boxes: Iterable[tuple[int, npt.NDArray[np.float32]]]
) -> int:
    """Write proposals as the authors' script does; memory does not grow with their number.

    Args:
        file: open for writing.
        images: with width and height.
        boxes: (image id, float32 (N, 4) xyxy in absolute pixels) image by image.

    Returns:
        Number of boxes written.
    """
    file.write('{"images": [')
    for place, image in enumerate(images):
        entry = {"id": image.id, "width": image.width, "height": image.height, "file_name": image.file_name}
        file.write((", " if place else "") + json.dumps(entry, ensure_ascii=False))
    file.write('], "annotations": [')
    number = 0
    for image_id, corners in boxes:
        wide = corners.astype(np.float64)  # differences of float32 corners are exact here, so that a reader finds them
        for box in np.hstack((wide[:, :2], wide[:, 2:] - wide[:, :2])).tolist():
            found = {"image_id": image_id, "bbox": [_whole(value) for value in box], "category_id": 1, "id": number}
            file.write((", " if number else "") + json.dumps(found))
            number += 1
    file.write(f'], "categories": {json.dumps([PROPOSAL_CATEGORY])}}}')
    return number


def _whole(value: float) -> int | float:
    """Pixel positions that are whole as whole numbers, as the authors' file has them."""
    return int(value) if value.is_integer() else value


def _stream(path: Path, name: str) -> Iterator[Any]:
    try:
        with path.open("rb") as file:
            yield from ijson.items(file, f"{name}.item", buf_size=_READ_AT_ONCE, use_float=True)
    except ijson.JSONError as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} is not a whole JSON file ({reason}); give a COCO JSON") from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}); give a COCO JSON file") from None
