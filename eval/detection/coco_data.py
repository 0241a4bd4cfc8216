"""A COCO-format data set with any classes, checked before Detectron2 sees it.

Layout as COCO's own: `train2017/`, `val2017/` and `annotations/instances_{train,val}2017.json`. Boxes in the files are
xywh in absolute pixels; masks are polygons or run-length encodings; category ids may be any integers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ccop_hub.errors import UserError

MaskFormat = Literal["polygon", "bitmask"]

_REQUIRED = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class CocoSplit:
    """One split of a data set.

    Attributes:
        name: under which Detectron2 knows it; unique to the paths and to the annotation file's content.
        annotations: the instance JSON.
        images: folder that the file names in the JSON are relative to.
        image_count: images listed.
        instance_count: annotated objects that are not crowds.
        classes: category id -> class name, in order of the id.
        masks: how the masks are stored; None where objects have boxes alone.
        digest: hexadecimal SHA-256 of the JSON, and of every image's name and size in bytes.
    """

    name: str
    annotations: Path
    images: Path
    image_count: int
    instance_count: int
    classes: dict[int, str]
    masks: MaskFormat | None
    digest: str


@dataclasses.dataclass(frozen=True)
class CocoData:
    """A data set to train on and to score on.

    Attributes:
        name: what a result table calls it.
        train: split to train on.
        val: split to score on.
    """

    name: str
    train: CocoSplit
    val: CocoSplit

    @property
    def digest(self) -> str:
        """`sha256:` and the digest over both splits."""
        return f"sha256:{hashlib.sha256((self.train.digest + self.val.digest).encode()).hexdigest()}"

    @property
    def class_names(self) -> list[str]:
        """Class names in the order of their category ids."""
        return list(self.train.classes.values())

    @property
    def masks(self) -> MaskFormat | None:
        """Format that both splits' masks can be read in; None where either has boxes alone."""
        if self.train.masks is None or self.val.masks is None:
            return None
        return "polygon" if self.train.masks == "polygon" else "bitmask"


def open_coco(root: Path) -> CocoData:
    """Check a data set in COCO's layout: JSON, references, classes and image files.

    Raises:
        UserError: the layout, a JSON or an image file is missing, or a JSON is not COCO's instance format.
    """
    if not root.is_dir():
        raise UserError(f"no data set at {root}: give a folder with train2017/, val2017/ and annotations/")
    train, val = (
        open_split(root / "annotations" / f"instances_{split}2017.json", root / f"{split}2017")
        for split in ("train", "val")
    )
    if train.classes != val.classes:
        raise UserError(f"the categories of {train.annotations} and {val.annotations} differ: give both the same list")
    return CocoData(name=root.resolve().name, train=train, val=val)


def open_split(annotations: Path, images: Path) -> CocoSplit:
    """Check one annotation file and its folder of images.

    Raises:
        UserError: as `open_coco`.
    """
    if not annotations.is_file() or not images.is_dir():
        absent = images if annotations.is_file() else annotations
        raise UserError(
            f"{absent} is missing: the data set needs train2017/, val2017/ and annotations/ as COCO has them"
        )
    content = annotations.read_bytes()
    document = _parse(annotations, content)
    classes = {category["id"]: category["name"] for category in sorted(document["categories"], key=lambda c: c["id"])}
    if len(set(classes.values())) < len(document["categories"]):
        raise UserError(f"{annotations} has two categories with one id or one name: give each its own")
    _check_references(annotations, document, classes)
    digest = hashlib.sha256(content)
    digest.update(_image_sizes(annotations, images, document["images"]))
    identity = hashlib.sha256(f"{annotations.resolve()}\n{images.resolve()}\n{digest.hexdigest()}".encode()).hexdigest()
    objects = [entry for entry in document["annotations"] if not entry.get("iscrowd", 0)]
    if not objects:
        raise UserError(f"{annotations} annotates no object: detection needs some to train on and to score")
    return CocoSplit(
        name=f"coco-format-{annotations.stem}-{identity[:12]}",
        annotations=annotations,
        images=images,
        image_count=len(document["images"]),
        instance_count=len(objects),
        classes=classes,
        masks=_mask_format(annotations, objects),
        digest=digest.hexdigest(),
    )


def register(split: CocoSplit) -> str:
    """Make a split known to Detectron2 (once a process) and return the name it goes by there."""
    from detectron2.data import DatasetCatalog
    from detectron2.data.datasets import register_coco_instances

    if split.name not in DatasetCatalog.list():
        register_coco_instances(split.name, {}, str(split.annotations), str(split.images))
    return split.name


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    """The document, with its three lists and their required keys checked."""
    try:
        document = json.loads(content)
    except ValueError as error:
        raise _not_coco(path, f"not JSON ({error})") from None
    if not isinstance(document, dict):
        raise _not_coco(path, "its top level is not an object")
    for kind, keys in _REQUIRED.items():
        entries = document.get(kind)
        if not isinstance(entries, list) or not entries:
            raise _not_coco(path, f"no list {kind!r} with entries")
        for key in keys:
            lacking = next((entry for entry in entries if not isinstance(entry, dict) or key not in entry), None)
            if lacking is not None:
                raise _not_coco(path, f"an entry of {kind!r} has no {key!r}: {str(lacking)[:80]}")
        ids = [entry["id"] for entry in entries]
        if len(set(ids)) != len(ids):
            raise _not_coco(path, f"ids in {kind!r} occur twice")
    return document


def _check_references(path: Path, document: dict[str, Any], classes: dict[int, str]) -> None:
    images = {entry["id"] for entry in document["images"]}
    for entry in document["annotations"]:
        if entry["id"] == 0:
            raise _not_coco(path, "an annotation has id 0, which pycocotools takes for none: count ids from 1")
        if entry["image_id"] not in images:
            raise _not_coco(path, f"annotation {entry['id']} is of image {entry['image_id']}, which is not listed")
        if entry["category_id"] not in classes:
            raise _not_coco(path, f"annotation {entry['id']} has category {entry['category_id']}, which is not listed")
        if not isinstance(entry["bbox"], list) or len(entry["bbox"]) != 4:
            raise _not_coco(path, f"the bbox of annotation {entry['id']} is not [x, y, width, height]")
        if entry.get("ignore", 0):
            raise _not_coco(path, f"annotation {entry['id']} has 'ignore', which the scorer does not know: drop it")


def _image_sizes(annotations: Path, folder: Path, images: Iterable[dict[str, Any]]) -> bytes:
    """Names and sizes in bytes of the image files, for the digest; missing files are named."""
    sizes, missing = [], []
    for name in sorted(entry["file_name"] for entry in images):
        try:
            sizes.append(f"{name} {(folder / name).stat().st_size}")
        except OSError:
            missing.append(name)
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise UserError(
            f"{len(missing)} images of {annotations} are not in {folder}: {', '.join(missing[:_NAMED])}{more}; "
            "complete the folder or drop them from the JSON"
        )
    return "\n".join(sizes).encode()


def _mask_format(path: Path, objects: list[dict[str, Any]]) -> MaskFormat | None:
    """How the objects' masks are stored, crowds aside; None where no object has one."""
    with_mask = [entry["segmentation"] for entry in objects if entry.get("segmentation")]
    if not with_mask:
        return None
    if len(with_mask) != len(objects):
        raise _not_coco(path, f"{len(objects) - len(with_mask)} of {len(objects)} objects have no 'segmentation'")
    return "bitmask" if any(isinstance(mask, dict) for mask in with_mask) else "polygon"


def _not_coco(path: Path, why: str) -> UserError:
    return UserError(f"{path} is not COCO's instance format: {why}; see https://cocodataset.org/#format-data")
