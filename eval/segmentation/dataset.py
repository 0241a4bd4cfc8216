"""Semantic segmentation data sets: Cityscapes' layout, or folders of images and label PNGs."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ccop_hub.errors import UserError, first_names
from ccop_hub.images import UnreadableImageError, read_class_ids, read_header, scan_images

from ..common.images import list_images, read_rgb
from .label_table import IGNORED, LabelTable, make_table, parse_label_map

_IMAGE_SUFFIX, _LABEL_SUFFIX = "_leftImg8bit.png", "_gtFine_labelIds.png"


@dataclass(frozen=True)
class LabelledSplit:
    """One split: image files and their label files, in the same order."""

    images: list[Path]
    labels: list[Path]


@dataclass(frozen=True)
class LabelledImages:
    """A segmentation data set.

    Attributes:
        table: its classes.
        train: training split.
        val: validation split, used for scoring.
        cityscapes: whether it has Cityscapes' layout.
    """

    table: LabelTable
    train: LabelledSplit
    val: LabelledSplit
    cityscapes: bool

    def read(self, split: LabelledSplit, index: int) -> tuple[Image.Image, np.ndarray]:
        """Read an image (RGB) and its (H, W) uint8 class indices.

        Raises:
            UserError: either file is unreadable, or their sizes differ.
        """
        image = read_rgb(split.images[index])
        label = read_ids(split.labels[index])
        _require_size(split.labels[index], label, image.size)
        return image, self.table.lookup()[label]


def read_ids(path: Path) -> np.ndarray:
    """Read a label image as (H, W) uint8 ids; for a palette image, these are the palette indices.

    Raises:
        UserError: the file is unreadable, or contains colours or ids above 255.
    """
    try:
        return read_class_ids(path)
    except UnreadableImageError as error:
        raise UserError(f"unreadable label {path}: {error.reason}; replace or remove it") from None


def open_labelled_images(data: Path, ignore: Sequence[int] = (), label_map: Sequence[str] = ()) -> LabelledImages:
    """Open a folder in one of the layouts described in `SegmentationSettings.data`.

    Args:
        data: the folder.
        ignore: label ids to ignore.
        label_map: `VALUE:ID` pairs that map values in label files to label ids, e.g. `255:1`.

    Raises:
        UserError: the layout is unknown, an image has no label of its size, or the labels do not match the classes.
    """
    mapping = parse_label_map(label_map)
    if (data / "leftImg8bit").is_dir() or (data / "gtFine").is_dir():
        if ignore or mapping:
            raise UserError(
                "--ignore and --label-map do not apply to Cityscapes, which defines its classes: remove them"
            )
        return LabelledImages(cityscapes_table(), _cityscapes(data, "train"), _cityscapes(data, "val"), cityscapes=True)
    if (data / "semantic").is_dir():
        names = data / "semantic" / "classes.txt"
        splits = [_folder(data / f"{name}2017", data / "semantic" / f"{name}2017") for name in ("train", "val")]
    elif (data / "train" / "images").is_dir():
        names = data / "classes.txt"
        splits = [_folder(data / name / "images", data / name / "labels") for name in ("train", "val")]
    else:
        raise UserError(
            f"{data} is not a segmentation data set: give Cityscapes (leftImg8bit, gtFine) or a folder with "
            "{train,val}/{images,labels}"
        )
    values = _values(splits)
    table = make_table(names, values, ignore, mapping)
    scored = {value for value, index in enumerate(table.lookup().tolist()) if index != IGNORED}
    for split in splits:
        if not any(scored.intersection(values[label]) for label in split.labels):
            raise UserError(
                f"all pixels of the labels in {split.labels[0].parent} are ignored: check the labels, --ignore and "
                "--label-map"
            )
    return LabelledImages(table, splits[0], splits[1], cityscapes=False)


def cityscapes_table() -> LabelTable:
    """Cityscapes' 19 training classes, from `cityscapesscripts`."""
    from cityscapesscripts.helpers.labels import labels

    scored = sorted((label for label in labels if 0 <= label.trainId < IGNORED), key=lambda label: label.trainId)
    colours = np.array([label.color for label in scored], dtype=np.uint8)
    return LabelTable([label.name for label in scored], [label.id for label in scored], colours)


def _cityscapes(data: Path, split: str) -> LabelledSplit:
    images = sorted((data / "leftImg8bit" / split).glob(f"*/*{_IMAGE_SUFFIX}"))
    labels = [
        data / "gtFine" / split / path.parent.name / path.name.replace(_IMAGE_SUFFIX, _LABEL_SUFFIX) for path in images
    ]
    if not images:
        raise UserError(f"no leftImg8bit/{split}/CITY/*{_IMAGE_SUFFIX} in {data}: unpack Cityscapes there")
    return _complete(images, labels)


def _folder(images: Path, labels: Path) -> LabelledSplit:
    found = list_images(images)
    if not labels.is_dir():
        raise UserError(f"no folder {labels}: put the label images of {images} there, with the names of the images")
    by_stem = defaultdict(list)
    for name in scan_images(labels).images:
        by_stem[os.path.splitext(name)[0]].append(labels / name)  # noqa: PTH122 - pathlib is slow for a million names
    chosen = [_label_of(path.relative_to(images), labels, by_stem) for path in found]
    used: dict[Path, Path] = {}
    for image, label in zip(found, chosen, strict=True):
        if used.setdefault(label, image) != image:
            raise UserError(
                f"{used[label]} and {image} have the same label {label}: remove or rename one of the images"
            )
    return _complete(found, chosen)


def _label_of(image: Path, labels: Path, by_stem: Mapping[str, Sequence[Path]]) -> Path:
    """Choose the label of an image: `NAME.png`, else the only image file of that name with another suffix."""
    usual = labels / image.with_suffix(".png")
    candidates = by_stem.get(image.with_suffix("").as_posix(), ())
    if usual in candidates or not candidates:
        return usual
    if len(candidates) > 1:
        raise UserError(
            f"{image} has several labels in {labels} ({first_names([path.name for path in candidates], 3)}): keep one"
        )
    return candidates[0]


def _complete(images: list[Path], labels: list[Path]) -> LabelledSplit:
    absent = [path for path in labels if not os.path.lexists(path)]
    if absent:
        others = sorted(set(absent[0].parent.glob("[!.]*")) - set(labels))
        present = others[0].name if others else ""
        raise UserError(
            f"{len(absent)} of {len(images)} images have no label, such as {absent[0]}"
            + (f" (but {present} is there)" if present else "")
            + ": add the labels, with the names of the images, or remove the images"
        )
    return LabelledSplit(images, labels)


def _values(splits: list[LabelledSplit]) -> dict[Path, list[int]]:
    """Distinct values in each label file, after checking its size."""
    pairs = [pair for split in splits for pair in zip(split.images, split.labels, strict=True)]
    with ThreadPoolExecutor() as pool:
        found = pool.map(_values_of, pairs)
        return {label: values for (_, label), values in zip(pairs, found, strict=True)}


def _values_of(pair: tuple[Path, Path]) -> list[int]:
    image, label = pair
    ids = read_ids(label)
    try:
        size = read_header(image).upright
    except UnreadableImageError as error:
        raise UserError(f"unreadable image {image}: {error.reason}; replace or remove it") from None
    _require_size(label, ids, size)
    values: list[int] = np.unique(ids).tolist()
    return values


def _require_size(path: Path, label: np.ndarray, size: tuple[int, int]) -> None:
    height, width = label.shape
    if (width, height) != size:
        raise UserError(
            f"{path} is {width}x{height}, its image {size[0]}x{size[1]}: a label must have the size of its image"
        )
