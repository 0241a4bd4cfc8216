"""Read the ground-truth boxes of a COCO-format data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccop_hub.coco.findings import Kind
from ccop_hub.coco.json_stream import stream_entries
from ccop_hub.coco.normalised import NormalisedCoco, normalise, only_roots_differ
from ccop_hub.errors import UserError

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
"""COCO's object sizes: lower (inclusive) and upper (exclusive) bound of the area, in square pixels."""

_SMALLEST_SIDE = 1.0

_ALWAYS_LEFT_OUT = (Kind.BOX_WITHOUT_AREA, Kind.BOX_OUTSIDE, Kind.BOX_CLIPPED, Kind.BAD_POLYGON, Kind.POLYGON_CLIPPED)
"""Fixes that make no difference here, since boxes are clipped to the image and masks are not read."""


@dataclass(frozen=True)
class BoxedImages:
    """One split's images that have boxes, and their boxes.

    Attributes:
        annotations: the JSON file.
        classes: class names, sorted by category id.
        paths: image files.
        boxes: per image, (n_i, 4) float32 xyxy in absolute pixels.
        labels: per image, (n_i,) int64 class indices.
        areas: per image, (n_i,) float64 object areas in square pixels.
        changed: the normalised copy if its boxes or classes differ from the file's, else None.
        note: what normalisation dropped, fixed or computed; empty if nothing.
    """

    annotations: Path
    classes: list[str]
    paths: list[Path]
    boxes: list[np.ndarray]
    labels: list[np.ndarray]
    areas: list[np.ndarray]
    changed: Path | None = None
    note: str = ""

    @property
    def counts(self) -> list[int]:
        """Number of boxes in each image."""
        return [len(boxes) for boxes in self.boxes]

    @property
    def owners(self) -> np.ndarray:
        """Image index of each box."""
        return np.repeat(np.arange(len(self.paths)), self.counts)

    @classmethod
    def read(cls, data: Path, split: str, roots: bool = False) -> BoxedImages:
        """Read `annotations/instances_{split}2017.json` and list `{split}2017/`.

        Skips crowds, boxes whose part inside the image is under one pixel wide or high, and images without boxes.

        Args:
            data: the data set's folder.
            split: `train` or `val`.
            roots: whether to keep categories without boxes that only group others.

        Raises:
            UserError: the layout or format is not COCO's, an image is missing, or there are no boxes.
        """
        normalised = _normalise(data, split, roots)
        file, folder = normalised.source, data / f"{split}2017"
        labels = {number: place for place, number in enumerate(normalised.classes)}
        images: dict[int, dict[str, Any]] = {}
        found: dict[int, list[list[float]]] = {}
        for section, _, entry in stream_entries(normalised.copy, ("images", "annotations")):
            if section == "images":
                images[entry["id"]] = entry
            elif (row := _row(entry, images[entry["image_id"]], labels)) is not None:
                found.setdefault(entry["image_id"], []).append(row)
        if not found:
            what = f" ({normalised.summary})" if normalised.summary else ""
            raise UserError(f"{file} has no boxes: give annotations with objects{what}")
        paths = {key: folder / images[key]["file_name"] for key in found}
        order = sorted(found, key=lambda key: str(paths[key]))
        columns = [np.array(found[key], dtype=np.float64) for key in order]
        return cls(
            annotations=file,
            classes=list(normalised.classes.values()),
            paths=[paths[key] for key in order],
            boxes=[rows[:, :4].astype(np.float32) for rows in columns],
            labels=[rows[:, 4].astype(np.int64) for rows in columns],
            areas=[rows[:, 5] for rows in columns],
            changed=None if normalised.content(_ALWAYS_LEFT_OUT) == file else normalised.copy,
            note=normalised.summary,
        )


def read_splits(data: Path) -> tuple[BoxedImages, BoxedImages]:
    """Read the train and val splits.

    Raises:
        UserError: see `BoxedImages.read`; or the splits' classes differ.
    """
    roots = only_roots_differ(_normalise(data, "train"), _normalise(data, "val"))
    train, val = BoxedImages.read(data, "train", roots), BoxedImages.read(data, "val", roots)
    if train.classes != val.classes:
        raise UserError(f"the train and val annotations of {data} have different categories: both need the same list")
    return train, val


def _normalise(data: Path, split: str, roots: bool = False) -> NormalisedCoco:
    file = data / "annotations" / f"instances_{split}2017.json"
    if not file.is_file():
        raise UserError(f"no {file}: give --data a COCO folder with annotations/instances_{split}2017.json")
    return normalise(file, data / f"{split}2017", roots=roots)


def _row(entry: dict[str, Any], image: dict[str, Any], labels: dict[int, int]) -> list[float] | None:
    """(x1, y1, x2, y2, class index, area) of an annotation; None if it is skipped."""
    x, y, width, height = entry["bbox"]
    x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + width, image["width"]), min(y + height, image["height"])
    if entry["iscrowd"] or x2 - x1 < _SMALLEST_SIDE or y2 - y1 < _SMALLEST_SIDE:
        return None
    return [x1, y1, x2, y2, labels[entry["category_id"]], entry["area"]]
