"""Open the data set given by `--data`: COCO, Pascal VOC or Cityscapes in their original layouts, in full or in part.

VOC and Cityscapes are converted to COCO JSON once and cached; the data set's folder is never written to.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ccop_hub.errors import UserError
from ccop_hub.files import bytes_digest, make_folder, write_atomically
from ccop_hub.regular_files import read_regular
from ccop_hub.sources.cache import cache_root

from . import cityscapes_data, voc_data
from .average_precision import LARGEST_JSON
from .coco_data import CocoData, CocoSplit, open_coco, open_pair, open_part

NAMED = {"coco": "coco", "voc": "", "cityscapes": "cityscapes"}
"""Names that `--data` accepts -> Detectron2's folder for them in `$DETECTRON2_DATASETS`."""

COCO_VARIABLE = "COCO_DIR"
"""Environment variable for COCO's folder; takes precedence over `$DETECTRON2_DATASETS`."""

_CONVERSION = 1
"""Bumped whenever a conversion changes, to invalidate older conversions in the cache."""


def locate(data: str) -> Path:
    """Resolve `--data` to a folder.

    Raises:
        UserError: the data set is given by name but the environment variable is not set.
    """
    if data not in NAMED:
        return Path(data).expanduser()
    if data == "coco" and os.environ.get(COCO_VARIABLE):
        return Path(os.environ[COCO_VARIABLE]).expanduser()
    base = os.environ.get("DETECTRON2_DATASETS")
    if not base:
        variables = f"{COCO_VARIABLE} or DETECTRON2_DATASETS" if data == "coco" else "DETECTRON2_DATASETS"
        raise UserError(f"--data {data} needs the environment variable {variables}: set it, or give the folder")
    return Path(base).expanduser() / NAMED[data]


def open_data(data: str, masks: bool = True) -> CocoData:
    """Open a data set in any of the three layouts.

    Args:
        data: a folder, or a key of `NAMED`.
        masks: see `open_pair`.

    Raises:
        UserError: the folder does not exist, has an unknown layout, or has invalid contents (see `open_coco`).
    """
    root = locate(data)
    voc = voc_data.find_root(root)
    if (root / "annotations").is_dir() or not root.is_dir():
        return open_coco(root, masks)
    if voc is not None:
        return _converted("voc07+12", voc, voc_data.sources, voc_data.convert, masks)
    if cityscapes_data.is_cityscapes(root):
        return _converted("cityscapes", root, cityscapes_data.sources, cityscapes_data.convert, masks)
    raise UserError(
        f"{root} has none of the supported layouts: COCO's (annotations/, train2017/, val2017/), VOC's "
        "(VOC2007/, VOC2012/) or Cityscapes' (leftImg8bit/, gtFine/)"
    )


def take_part(data: CocoData, percent: int, seed: int) -> CocoData:
    """Return the data set with a random subset of its training images and all of its validation images.

    With the same seed, a smaller subset is always contained in a larger one.

    Args:
        data: the full data set.
        percent: percentage of training images to keep.
        seed: seed of the selection.
    """
    # A user's file that needed no changes is read directly, so that its subsets keep the digests of earlier versions.
    document = _read(data.train.annotations if data.train.note else data.train.source)
    identifiers = sorted(entry["id"] for entry in document["images"])
    count = max(1, round(len(identifiers) * percent / 100))
    order = np.random.default_rng(seed).permutation(len(identifiers))[:count]
    chosen = {identifiers[place] for place in order.tolist()}
    part = {
        "images": [entry for entry in document["images"] if entry["id"] in chosen],
        "annotations": [entry for entry in document["annotations"] if entry["image_id"] in chosen],
        "categories": document["categories"],
    }
    path = _keep(part, ["part", data.train.digest, percent, seed], f"instances_train_{percent}percent_seed{seed}.json")
    return dataclasses.replace(data, name=f"{data.name} ({percent}%)", train=open_part(path, data))


def image_names(split: CocoSplit) -> list[str]:
    """Sorted file names of a split's images."""
    return sorted(entry["file_name"] for entry in _read(split.annotations)["images"])


def _read(path: Path) -> Any:
    return orjson.loads(read_regular(path, LARGEST_JSON))


def _converted(
    name: str,
    root: Path,
    sources: Callable[[Path, str], Sequence[Path]],
    convert: Callable[[Path, str], dict[str, Any]],
    masks: bool,
) -> CocoData:
    """Convert both splits, or reuse cached ones, keyed by the names, sizes and times of the source files."""
    converted = []
    for split in ("train", "val"):
        listed = [(path.relative_to(root).as_posix(), path.stat()) for path in sources(root, split)]
        made_of = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in listed]
        converted.append(_keep(partial(convert, root, split), [name, _CONVERSION, made_of], f"instances_{split}.json"))
    return open_pair(name, (converted[0], root), (converted[1], root), masks)


def _keep(document: dict[str, Any] | Callable[[], dict[str, Any]], identity: list[Any], name: str) -> Path:
    """Return a document's path in the cache, writing it first if missing."""
    digest = bytes_digest(json.dumps(identity).encode()).partition(":")[2][:16]
    path = cache_root() / "annotations" / digest / name
    if not path.is_file():
        make_folder(path.parent)
        content = document() if callable(document) else document
        write_atomically(path, json.dumps(content))
    return path
