"""Convert Pascal VOC's layout to COCO instance JSON: train on 2007+2012 trainval, score on 2007 test."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccop_hub.errors import UserError
from ccop_hub.regular_files import read_regular, read_text

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The 20 classes in the VOC devkit's order; category ids start at 1."""

SPLITS = {"train": (("VOC2007", "trainval"), ("VOC2012", "trainval")), "val": (("VOC2007", "test"),)}
"""Split -> years and image sets (VOC07+12, as in MoCo)."""


def find_root(folder: Path) -> Path | None:
    """Find the folder that contains `VOC2007`: `folder` itself or its `VOCdevkit`; None if neither does."""
    return next((root for root in (folder, folder / "VOCdevkit") if (root / "VOC2007").is_dir()), None)


def sources(root: Path, split: str) -> list[Path]:
    """List a split's XML files in the order of its image sets.

    Raises:
        UserError: an image set or an XML file is missing.
    """
    found = []
    for year, image_set in SPLITS[split]:
        listing = root / year / "ImageSets" / "Main" / f"{image_set}.txt"
        if not listing.is_file():
            raise UserError(f"{listing} is missing: VOC07+12 needs 2007 trainval and test, and 2012 trainval, unpacked")
        found += [root / year / "Annotations" / f"{name}.xml" for name in _names(listing)]
    absent = next((path for path in found if not path.is_file()), None)
    if absent is not None:
        raise UserError(f"{absent} is missing: unpack the data set again")
    return found


def convert(root: Path, split: str) -> dict[str, Any]:
    """Convert a split to COCO instance JSON; file names are relative to `root`.

    VOC's 1-based, inclusive pixel box (1, 1, W, H), which covers the whole image, becomes (0, 0, W, H) as xywh in
    continuous coordinates, as in Detectron2. Difficult objects are kept for training and marked `difficult`.

    Raises:
        UserError: a file is not XML or not a VOC annotation; the message names the file and the object.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, path in enumerate(sources(root, split), start=1):
        tree = _parse(path)
        picture = path.parent.parent / "JPEGImages" / f"{path.stem}.jpg"
        size = {side: int(_number(tree, f"size/{side}", path)) for side in ("width", "height")}
        images.append({"id": number, "file_name": picture.relative_to(root).as_posix(), **size})
        for entry in _objects(tree, path):
            annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, **entry})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _names(listing: Path) -> list[str]:
    try:
        return read_text(listing, errors="surrogateescape").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{listing} cannot be read ({error}); unpack the data set again") from None


def _objects(tree: ElementTree.Element, path: Path) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(tree.iter("object"), start=1):
        name = _text(entry, "name", path)
        if name not in CLASSES:
            raise UserError(
                f"{path} has an object of class {name!r}, which is not a VOC class: convert the data set to COCO format"
            )
        left, top, right, bottom = (_number(entry, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
        width, height = right - (left - 1), bottom - (top - 1)
        if width <= 0 or height <= 0:
            raise UserError(
                f"{path}: object {number} ({name}) has a box without area, xmin {left:g} ymin {top:g} xmax {right:g} "
                f"ymax {bottom:g}; correct it or remove the object"
            )
        yield {
            "category_id": CLASSES.index(name) + 1,
            "bbox": [left - 1, top - 1, width, height],
            "area": width * height,
            "difficult": int(entry.findtext("difficult", "0").strip() not in ("", "0")),
        }


def _parse(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(read_regular(path))
    # An unknown encoding raises LookupError; one that expat does not support raises ValueError.
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:
        raise UserError(f"{path} is not XML ({error}); unpack the data set again") from None


def _number(element: ElementTree.Element, path: str, file: Path) -> float:
    text = _text(element, path, file)
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise UserError(f"{file} is not a VOC annotation: {path} is {text!r}, not a number; correct it")
    return found


def _text(element: ElementTree.Element, path: str, file: Path) -> str:
    found = element.findtext(path)
    if found is None:
        raise UserError(f"{file} is not a VOC annotation: it has no {path}; unpack the data set again")
    return found.strip()
