"""From what the user names to a data set: COCO, Pascal VOC or Cityscapes in their own layouts, all of it or a part.

VOC and Cityscapes are converted to COCO's JSON once, into the cache; the files of the data set are never written to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ccop_hub.errors import UserError
from ccop_hub.files import bytes_digest, write_atomically
from ccop_hub.sources.cache import cache_root

from . import cityscapes_data, voc_data
from .coco_data import CocoData, CocoSplit, open_coco, open_split

NAMED = {"coco": "coco", "voc": "", "cityscapes": "cityscapes"}
"""Names that `--data` takes -> folder below `$DETECTRON2_DATASETS`, as Detectron2 expects them there."""

COCO_VARIABLE = "COCO_DIR"
"""Environment variable with COCO's folder; it goes before `$DETECTRON2_DATASETS`."""

_CONVERSION = 1
"""Raised whenever a conversion writes something else, so that what the cache holds is not taken for it."""


def locate(data: str) -> Path:
    """The folder that `--data` names.

    Raises:
        UserError: a named data set whose environment variable is not set.
    """
    if data not in NAMED:
        return Path(data).expanduser()
    if data == "coco" and os.environ.get(COCO_VARIABLE):
        return Path(os.environ[COCO_VARIABLE]).expanduser()
    base = os.environ.get("DETECTRON2_DATASETS")
    if not base:
        variables = f"{COCO_VARIABLE} or DETECTRON2_DATASETS" if data == "coco" else "DETECTRON2_DATASETS"
        raise UserError(f"--data {data} is found by the environment variable {variables}: set it, or give the folder")
    return Path(base).expanduser() / NAMED[data]


def open_data(data: str) -> CocoData:
    """Open a data set in any of the three layouts.

    Args:
        data: a folder, or one of `NAMED`.

    Raises:
        UserError: no such folder, none of the layouts, or something in it that does not fit; see `open_coco`.
    """
    root = locate(data)
    voc = voc_data.find_root(root)
    if (root / "annotations").is_dir() or not root.is_dir():
        return open_coco(root)
    if voc is not None:
        return _converted("voc07+12", voc, voc_data.sources, voc_data.convert)
    if cityscapes_data.is_cityscapes(root):
        return _converted("cityscapes", root, cityscapes_data.sources, cityscapes_data.convert)
    raise UserError(
        f"{root} has none of the layouts that detection reads: COCO's (annotations/, train2017/, val2017/), VOC's "
        "(VOC2007/, VOC2012/) or Cityscapes' (leftImg8bit/, gtFine/)"
    )


def take_part(data: CocoData, percent: int, seed: int) -> CocoData:
    """The same data set with a seeded part of its training images; scoring keeps all of its own.

    For one seed a smaller part is contained in a larger one.

    Args:
        data: the whole.
        percent: of the training images.
        seed: of the choice.
    """
    document = json.loads(data.train.annotations.read_text(encoding="utf-8"))
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
    return CocoData(name=f"{data.name} ({percent}%)", train=open_split(path, data.train.images), val=data.val)


def image_names(split: CocoSplit) -> list[str]:
    """File names of a split's images, sorted."""
    document = json.loads(split.annotations.read_text(encoding="utf-8"))
    return sorted(entry["file_name"] for entry in document["images"])


def _converted(
    name: str,
    root: Path,
    sources: Callable[[Path, str], Sequence[Path]],
    convert: Callable[[Path, str], dict[str, Any]],
) -> CocoData:
    """Both splits through the cache, where a conversion lies under names, sizes and times of what it was made of."""
    splits = []
    for split in ("train", "val"):
        listed = [(path.relative_to(root).as_posix(), path.stat()) for path in sources(root, split)]
        made_of = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in listed]
        path = _keep(partial(convert, root, split), [name, _CONVERSION, made_of], f"instances_{split}.json")
        splits.append(open_split(path, root))
    return CocoData(name=name, train=splits[0], val=splits[1])


def _keep(document: dict[str, Any] | Callable[[], dict[str, Any]], identity: list[Any], name: str) -> Path:
    """A document's path in the cache; it is made and written only if it is not there."""
    digest = bytes_digest(json.dumps(identity).encode()).partition(":")[2][:16]
    path = cache_root() / "annotations" / digest / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = document() if callable(document) else document
        write_atomically(path, json.dumps(content))
    return path
