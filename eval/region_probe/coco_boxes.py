"""Ground-truth boxes of a COCO-format data set, image by image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccop_hub.errors import UserError

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
"""COCO's size classes: lower (inclusive) and upper (exclusive) bound of an object's area, in square pixels."""

_SMALLEST_SIDE = 1.0


@dataclass(frozen=True)
class BoxedImages:
    """One split: the images that have boxes, and the boxes.

    Attributes:
        annotations: the JSON file.
        classes: class names, by category id.
        paths: image files.
        boxes: (n_i, 4) float32 xyxy absolute pixels of each image.
        labels: (n_i,) int64 class indices of each image.
        areas: (n_i,) float64 object areas in square pixels of each image.
    """

    annotations: Path
    classes: list[str]
    paths: list[Path]
    boxes: list[np.ndarray]
    labels: list[np.ndarray]
    areas: list[np.ndarray]

    @property
    def counts(self) -> list[int]:
        """Boxes of each image."""
        return [len(boxes) for boxes in self.boxes]

    @property
    def owners(self) -> np.ndarray:
        """Image index of each box, all boxes in order."""
        return np.repeat(np.arange(len(self.paths)), self.counts)

    @classmethod
    def read(cls, data: Path, split: str) -> BoxedImages:
        """Read `annotations/instances_{split}2017.json` and list `{split}2017/`.

        Crowds, and boxes of less than a pixel inside their image, are left out; so are images without a box.

        Raises:
            UserError: not COCO's layout or format, an image is absent, or there is no box.
        """
        file = data / "annotations" / f"instances_{split}2017.json"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            categories = sorted(content["categories"], key=lambda category: category["id"])
            images = {image["id"]: image for image in content["images"]}
            found = _boxes_by_image(content["annotations"], images, {c["id"]: i for i, c in enumerate(categories)})
            names = [str(category["name"]) for category in categories]
            paths = {key: data / f"{split}2017" / images[key]["file_name"] for key in found}
        except FileNotFoundError:
            raise UserError(
                f"no {file}: give --data a COCO folder with annotations/instances_{split}2017.json"
            ) from None
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{file} is not COCO instance annotations ({error!r}): give a COCO instances JSON"
            ) from None
        if not found:
            raise UserError(f"{file} has no boxes: give annotations with objects in them")
        absent = [path for path in paths.values() if not path.is_file()]
        if absent:
            raise UserError(f"{len(absent)} annotated images are absent, such as {absent[0]}: restore {split}2017")
        order = sorted(found, key=lambda key: str(paths[key]))
        columns = [np.array(found[key], dtype=np.float64) for key in order]
        return cls(
            annotations=file,
            classes=names,
            paths=[paths[key] for key in order],
            boxes=[rows[:, :4].astype(np.float32) for rows in columns],
            labels=[rows[:, 4].astype(np.int64) for rows in columns],
            areas=[rows[:, 5] for rows in columns],
        )


def read_splits(data: Path) -> tuple[BoxedImages, BoxedImages]:
    """The train and val splits.

    Raises:
        UserError: as `BoxedImages.read`; or the splits have other classes.
    """
    train, val = BoxedImages.read(data, "train"), BoxedImages.read(data, "val")
    if train.classes != val.classes:
        raise UserError(f"the annotations of {data} have other categories for train than for val: give both the same")
    return train, val


def _boxes_by_image(
    annotations: list[dict[str, Any]], images: dict[Any, dict[str, Any]], labels: dict[Any, int]
) -> dict[Any, list[list[float]]]:
    """Image id -> rows (x1, y1, x2, y2, class index, area)."""
    found: dict[Any, list[list[float]]] = {}
    for annotation in annotations:
        image = images[annotation["image_id"]]
        x, y, width, height = (float(value) for value in annotation["bbox"])
        x1, y1 = max(x, 0.0), max(y, 0.0)
        x2, y2 = min(x + width, float(image["width"])), min(y + height, float(image["height"]))
        if annotation.get("iscrowd") or x2 - x1 < _SMALLEST_SIDE or y2 - y1 < _SMALLEST_SIDE:
            continue
        area = float(annotation.get("area", width * height))
        found.setdefault(annotation["image_id"], []).append([x1, y1, x2, y2, labels[annotation["category_id"]], area])
    return found
