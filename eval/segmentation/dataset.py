"""Semantic segmentation data sets: Cityscapes' layout, or folders of images and label PNGs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.images import UnreadableImageError, read_class_ids

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
        if label.shape != (image.height, image.width):
            raise UserError(
                f"{split.labels[index]} is {label.shape[1]}x{label.shape[0]}, its image {image.width}x{image.height}: "
                "a label must have the size of its image"
            )
        return image, self.table.lookup()[label]


def read_ids(path: Path) -> np.ndarray:
    """Read a label PNG as (H, W) uint8 ids; for a palette PNG, these are the palette indices.

    Raises:
        UserError: the file is unreadable or does not have a single 8-bit channel.
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
        UserError: the layout is unknown, an image has no label, or the labels do not match the classes.
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
    table = make_table(names, _values(splits), ignore, mapping)
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
    return _complete(found, [labels / path.relative_to(images).with_suffix(".png") for path in found])


def _complete(images: list[Path], labels: list[Path]) -> LabelledSplit:
    absent = [path for path in labels if not path.is_file()]
    if absent:
        raise UserError(f"{len(absent)} of {len(images)} images have no label, such as {absent[0]}: add or remove them")
    return LabelledSplit(images, labels)


def _values(splits: list[LabelledSplit]) -> dict[Path, list[int]]:
    """Distinct values in each label file."""
    files = [file for split in splits for file in split.labels]
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda file: np.unique(read_ids(file)).tolist(), files)
        return dict(zip(files, found, strict=True))
