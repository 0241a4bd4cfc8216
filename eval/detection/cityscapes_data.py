"""Convert Cityscapes' layout (`leftImg8bit/`, `gtFine/`) to COCO instance JSON with RLE masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from rich.progress import track

from ccop_hub.errors import UserError
from ccop_hub.images import MAX_PIXELS, read_instance_ids
from ccop_hub.regular_files import read_regular

INSTANCE_BASE = 1000
"""In instance images, an object's pixels are `label id * 1000 + number`, a group's just the label id."""

_IMAGE, _PICTURE, _POLYGONS = "_leftImg8bit.png", "_gtFine_instanceIds.png", "_gtFine_polygons.json"


def is_cityscapes(root: Path) -> bool:
    """Whether a folder has Cityscapes' two subfolders."""
    return (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir()


def instance_classes() -> dict[int, str]:
    """Label id -> name of the eight classes with scored instances (cityscapesscripts' label table)."""
    from cityscapesscripts.helpers.labels import labels

    return {label.id: label.name for label in labels if label.hasInstances and not label.ignoreInEval}


def sources(root: Path, split: str) -> list[Path]:
    """Annotation files of a split, sorted by image name: the instance image, or else the polygon file.

    Raises:
        UserError: there are no images, or an image has no annotation.
    """
    images = sorted((root / "leftImg8bit" / split).glob(f"*/*{_IMAGE}"))
    if not images:
        raise UserError(f"no images in {root / 'leftImg8bit' / split}: unpack leftImg8bit_trainvaltest.zip there")
    return [_annotation_of(root, split, image) for image in images]


def convert(root: Path, split: str) -> dict[str, Any]:
    """Convert a split to COCO instance JSON; file names are relative to `root`, category ids are Cityscapes' label ids.

    Groups (a crowd of people, a row of bicycles) become COCO crowds, which are neither trained on nor scored.
    """
    classes = instance_classes()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, path in enumerate(track(sources(root, split), f"reading Cityscapes {split}", transient=True), start=1):
        picture = _instances(path)
        stem = path.name.removesuffix(_PICTURE).removesuffix(_POLYGONS)
        name = f"leftImg8bit/{split}/{path.parent.name}/{stem}{_IMAGE}"
        images.append({"id": number, "file_name": name, "width": picture.shape[1], "height": picture.shape[0]})
        for value in np.unique(picture).tolist():
            label = value // INSTANCE_BASE if value >= INSTANCE_BASE else value
            if label in classes:
                entry = {"category_id": label, "iscrowd": int(value < INSTANCE_BASE), **_mask(picture == value)}
                annotations.append({"id": len(annotations) + 1, "image_id": number, **entry})
    categories = [{"id": label, "name": name} for label, name in classes.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation_of(root: Path, split: str, image: Path) -> Path:
    folder, stem = root / "gtFine" / split / image.parent.name, image.name.removesuffix(_IMAGE)
    for suffix in (_PICTURE, _POLYGONS):
        if (folder / (stem + suffix)).is_file():
            return folder / (stem + suffix)
    raise UserError(f"{image} has no {stem}{_POLYGONS} in {folder}: unpack gtFine_trainvaltest.zip there")


def _instances(path: Path) -> npt.NDArray[np.int64]:
    """(H, W) instance ids, read from the instance image or rasterised from the polygons by Cityscapes' own tool."""
    if path.name.endswith(_PICTURE):
        return read_instance_ids(path)
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.preparation.json2instanceImg import createInstanceImage

    _check_polygons(path)
    annotation = Annotation()
    annotation.fromJsonFile(str(path))
    return np.asarray(createInstanceImage(annotation, "ids")).astype(np.int64)


def _check_polygons(path: Path) -> None:
    """Check polygons before Cityscapes' tool reads them, since it exits the process on an unknown label.

    Raises:
        UserError: a polygon is invalid; the message names the file and the object.
    """
    from cityscapesscripts.helpers.labels import name2label

    def wrong(what: str) -> UserError:
        return UserError(f"{path} is not a Cityscapes annotation: {what}; unpack gtFine_trainvaltest.zip again")

    try:
        document = orjson.loads(read_regular(path))
    except (OSError, ValueError) as error:
        raise wrong(f"it cannot be read as JSON ({error})") from None
    if not isinstance(document, dict) or not isinstance(document.get("objects"), list):
        raise wrong("it has no list 'objects'")
    width, height = document.get("imgWidth"), document.get("imgHeight")
    if type(width) is not int or type(height) is not int or not 0 < width * height <= MAX_PIXELS or width < 0:
        raise wrong(f"imgWidth and imgHeight are {width!r} and {height!r}")
    for number, entry in enumerate(document["objects"]):
        label = entry.get("label") if isinstance(entry, dict) else None
        if not isinstance(label, str) or (label not in name2label and label.removesuffix("group") not in name2label):
            raise wrong(f"object {number} has the label {label!r}, which Cityscapes does not have")
        polygon = entry.get("polygon")
        points = polygon if isinstance(polygon, list) else []
        if len(points) < 3 or not all(_is_point(point) for point in points):
            raise wrong(f"object {number} ({label}) has no polygon of three points or more")


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(side) in (int, float) for side in value)


def _mask(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Segmentation (compressed RLE), area in pixels and xywh box of a mask."""
    from pycocotools import mask as run_lengths

    encoded = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "segmentation": {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")},
        "area": float(run_lengths.area(encoded)),
        "bbox": [float(value) for value in run_lengths.toBbox(encoded)],
    }
