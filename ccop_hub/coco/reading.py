"""Stream the images and boxes of COCO JSON files in file order, with constant memory use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .boxes import read_box
from .findings import Findings, Kind
from .json_stream import stream_entries
from .listing import raw_image, wrong_entry
from .masks import Box
from .values import WrongValueError, flag, identifier


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
