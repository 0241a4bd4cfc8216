"""Stream COCO JSON files, and write proposals in the authors' format.

The authors' script writes, and their training code reads, a COCO JSON with a single category:

    images       id, width, height, file_name; copied from the data set's instance JSON
    annotations  image_id, bbox [x, y, width, height] in pixels, category_id 1, id counted from 0
    categories   one: supercategory "RoI", id 1, name "RoI"

(OpenSelfSup CCOP, tools/selective_search.py and openselfsup/datasets/data_sources/coco_boxes.py.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from ccop_hub.coco.boxes import read_box
from ccop_hub.coco.findings import Findings, Kind
from ccop_hub.coco.json_stream import stream_entries
from ccop_hub.coco.listing import raw_image, wrong_entry
from ccop_hub.coco.masks import Box
from ccop_hub.coco.values import WrongValueError, flag, identifier
from ccop_hub.errors import UserError

PROPOSAL_CATEGORY = {"supercategory": "RoI", "id": 1, "name": "RoI"}


@dataclass(frozen=True)
class CocoImage:
    """An entry of `images`; width and height in pixels, or None if not given. Ids may be strings."""

    id: int | str
    file_name: str
    width: int | None
    height: int | None


@dataclass(frozen=True)
class CocoBox:
    """An entry of `annotations`; `box` is x, y, width, height in absolute pixels."""

    image_id: int | str
    box: Box


def read_images(path: Path) -> Iterator[CocoImage]:
    """Yield the images of a COCO JSON in file order, with constant memory use.

    Raises:
        UserError: the file does not exist, or is not a COCO JSON.
    """
    found = False
    for _, place, entry in stream_entries(path, ("images",)):
        found = True
        image = raw_image(path, place, entry)
        yield CocoImage(image.id, image.file_name, *(image.size or (None, None)))
    if not found:
        raise UserError(f"{path} lists no images: give a COCO JSON (with `images` and `annotations`)")


def read_boxes(path: Path, findings: Findings) -> Iterator[CocoBox]:
    """Yield the boxes of a COCO JSON in file order, excluding crowds, with constant memory use.

    Args:
        path: COCO JSON.
        findings: counts boxes dropped for having no area, and boxes that were fixed.

    Raises:
        UserError: the file does not exist, is not a COCO JSON, or has a box that is not four finite numbers.
    """
    for _, place, entry in stream_entries(path, ("annotations",)):
        if type(entry) is not dict:
            raise wrong_entry(path, "annotations", place, entry, "it is not an object")
        met: list[Kind] = []
        try:
            if flag(entry.get("iscrowd")):
                continue
            box = read_box(entry.get("bbox"), None, met)
            image = identifier(entry.get("image_id"))
        except WrongValueError as error:
            raise wrong_entry(path, "annotations", place, entry, str(error)) from None
        for kind in met:
            findings.add(kind, entry.get("id", place))
        if box is not None:
            yield CocoBox(image, box)


def write_proposals(
    file: TextIO, images: Iterable[CocoImage], boxes: Iterable[tuple[int, npt.NDArray[np.float32]]]
) -> int:
    """Write proposals in the format of the authors' script, with constant memory use.

    Args:
        file: file open for writing.
        images: images with width and height.
        boxes: (image id, float32 (N, 4) xyxy in absolute pixels) for each image.

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
        wide = corners.astype(np.float64)  # makes width and height exact, so that the corners can be recovered
        for box in np.hstack((wide[:, :2], wide[:, 2:] - wide[:, :2])).tolist():
            found = {"image_id": image_id, "bbox": [_whole(value) for value in box], "category_id": 1, "id": number}
            file.write((", " if number else "") + json.dumps(found))
            number += 1
    file.write(f'], "categories": {json.dumps([PROPOSAL_CATEGORY])}}}')
    return number


def _whole(value: float) -> int | float:
    """Convert integral pixel positions to int, as in the authors' file."""
    return int(value) if value.is_integer() else value
