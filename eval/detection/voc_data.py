"""Pascal VOC's own layout as COCO instance JSON: 2007 and 2012 trainval to train on, 2007 test to score on."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccop_hub.errors import UserError

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
"""The twenty classes in the order of the VOC devkit; category ids count from 1."""

SPLITS = {"train": (("VOC2007", "trainval"), ("VOC2012", "trainval")), "val": (("VOC2007", "test"),)}
"""Years and image sets that each split is made of (MoCo's VOC07+12)."""


def find_root(folder: Path) -> Path | None:
    """The folder that holds `VOC2007`, which is `folder` itself or its `VOCdevkit`; None if neither does."""
    return next((root for root in (folder, folder / "VOCdevkit") if (root / "VOC2007").is_dir()), None)


def sources(root: Path, split: str) -> list[Path]:
    """The XML files of a split, in the order of its image sets.

    Raises:
        UserError: an image set or an XML file is missing.
    """
    found = []
    for year, image_set in SPLITS[split]:
        listing = root / year / "ImageSets" / "Main" / f"{image_set}.txt"
        if not listing.is_file():
            raise UserError(f"{listing} is missing: VOC07+12 needs 2007 trainval and test, and 2012 trainval, unpacked")
        found += [root / year / "Annotations" / f"{name}.xml" for name in listing.read_text(encoding="utf-8").split()]
    absent = next((path for path in found if not path.is_file()), None)
    if absent is not None:
        raise UserError(f"{absent} is missing: unpack the data set again")
    return found


def convert(root: Path, split: str) -> dict[str, Any]:
    """A split as a COCO instance document; file names are relative to `root`.

    Boxes on a continuous plane: VOC counts pixels from 1 with both ends included, so that (1, 1, W, H) is all of the
    image, here x 0, y 0, width W, height H (as Detectron2 reads them). Difficult objects are kept, and trained on; the
    mark stays as `difficult`.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, path in enumerate(sources(root, split), start=1):
        tree = _parse(path)
        picture = path.parent.parent / "JPEGImages" / f"{path.stem}.jpg"
        size = {side: int(_text(tree, f"size/{side}", path)) for side in ("width", "height")}
        images.append({"id": number, "file_name": picture.relative_to(root).as_posix(), **size})
        for entry in _objects(tree, path):
            annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, **entry})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _objects(tree: ElementTree.Element, path: Path) -> Iterator[dict[str, Any]]:
    for entry in tree.iter("object"):
        name = _text(entry, "name", path)
        if name not in CLASSES:
            raise UserError(
                f"{path} has an object of class {name!r}, which VOC does not: convert the data set to COCO's"
            )
        left, top, right, bottom = (
            float(_text(entry, f"bndbox/{side}", path)) for side in ("xmin", "ymin", "xmax", "ymax")
        )
        width, height = right - (left - 1), bottom - (top - 1)
        yield {
            "category_id": CLASSES.index(name) + 1,
            "bbox": [left - 1, top - 1, width, height],
            "area": width * height,
            "difficult": int(entry.findtext("difficult", "0")),
        }


def _parse(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is not XML ({error}); unpack the data set again") from None


def _text(element: ElementTree.Element, path: str, file: Path) -> str:
    found = element.findtext(path)
    if found is None:
        raise UserError(f"{file} is not a VOC annotation: it has no {path}; unpack the data set again")
    return found.strip()
