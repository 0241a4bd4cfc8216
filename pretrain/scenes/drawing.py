"""Write the files of one synthetic image and build its COCO entries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ccop_hub import __version__
from ccop_hub.files import replacing
from ccop_hub.synthetic.painting import Scene, paint_scene
from ccop_hub.synthetic.shapes import SHAPES

from ..settings import SceneSettings
from .mask_polygons import mask_to_polygons

BACKGROUND_LABEL = 0  # in the label images, where class k of the JSON has label k
IGNORE_LABEL = 255
SPLITS = ("train", "val")

_MIN_PART = 12  # visible pixels; smaller fragments of an occluded object are labelled as ignored
_CROP_MARGIN = 0.15  # fraction of the box's longer side
_PNG_COMPRESSION = 3  # 10x faster than 9, for files a third larger
_LABEL_COMPRESSION = 6


@dataclass(frozen=True)
class Job:
    """One image to paint: its split and its index within the split, from 0."""

    split: str
    index: int

    @property
    def image_id(self) -> int:
        """COCO image id, from 1."""
        return self.index + 1

    @property
    def file_name(self) -> str:
        """File name of the image and of its label image."""
        return f"{self.split}_{self.image_id:06d}.png"


def draw(settings: SceneSettings, job: Job) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Paint one image, write it with its labels and crops, and return its COCO image and annotation entries."""
    # The split is part of the key, so that no val image can repeat a train image.
    seeds = np.random.SeedSequence(settings.seed, spawn_key=(SPLITS.index(job.split), job.index))
    scene = paint_scene(np.random.default_rng(seeds), settings.size, settings.clutter)
    height, width = scene.instances.shape
    folder = f"{job.split}2017"
    picture = Image.fromarray(scene.image)
    _save(picture, settings.out / folder / job.file_name)
    labels = np.full((height, width), BACKGROUND_LABEL, np.uint8)
    annotations = []
    for number, shape in enumerate(scene.shapes):
        mask, slivers = _visible_parts(scene, number)
        category = SHAPES.index(shape) + 1
        labels[mask], labels[slivers] = category, IGNORE_LABEL
        left, top, box_width, box_height = box = _bounds(mask)
        annotations.append(
            {
                # Unique within the split, since an image has far fewer than 100 objects.
                "id": job.image_id * 100 + number,
                "image_id": job.image_id,
                "category_id": category,
                "iscrowd": 0,
                "bbox": [float(value) for value in box],
                "area": float(mask.sum()),
                "segmentation": mask_to_polygons(mask),
            }
        )
        margin = round(_CROP_MARGIN * max(box_width, box_height))
        corners = (left - margin, top - margin, left + box_width + margin, top + box_height + margin)
        inside = (max(corners[0], 0), max(corners[1], 0), min(corners[2], width), min(corners[3], height))
        name = f"{Path(job.file_name).stem}_{number:02d}.png"
        crop_path = settings.out / "crops" / job.split / shape / name
        _save(picture.crop(inside), crop_path)
    _save(Image.fromarray(labels), settings.out / "semantic" / folder / job.file_name, _LABEL_COMPRESSION)
    image = {"id": job.image_id, "file_name": job.file_name, "width": width, "height": height, "license": 1}
    return image, annotations


def _save(picture: Image.Image, path: Path, compression: int = _PNG_COMPRESSION) -> None:
    with replacing(path, sync=False) as temporary:
        picture.save(temporary, format="PNG", compress_level=compression)


def _visible_parts(scene: Scene, number: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return masks of an object's visible pixels, and of those in fragments too small to label."""
    mask = scene.instances == number
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < _MIN_PART
    slivers = mask & small[parts]
    return mask & ~slivers, slivers


def _bounds(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the bounding box of a non-empty mask as left, top, width, height."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def coco_document(settings: SceneSettings, images: list[Any], annotations: list[Any]) -> dict[str, Any]:
    """Build the COCO instance JSON of one split."""
    return {
        "info": {
            "description": "Textured shapes that overlap, drawn procedurally; classes differ only by outline.",
            "contributor": f"ccop-pretrain scenes (ccop-hub {__version__}), seed {settings.seed}",
            "version": "1.0",
        },
        "licenses": [
            {
                "id": 1,
                "name": "CC0 1.0 (public domain)",
                "url": "https://creativecommons.org/publicdomain/zero/1.0/",
            }
        ],
        "categories": [
            {"id": index, "name": shape, "supercategory": "shape"} for index, shape in enumerate(SHAPES, start=1)
        ],
        "images": images,
        "annotations": annotations,
    }
