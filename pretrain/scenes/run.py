"""`ccop-pretrain scenes`: a procedurally drawn data set in COCO's layout.

train2017/, val2017/                  images
annotations/instances_train2017.json  and instances_val2017.json: boxes and masks of the visible parts
semantic/train2017/, val2017/         label images; semantic/classes.txt has the name of label k on line k, from 0
crops/train/<class>/, val/<class>/    one crop an object, for a classifier
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import track

from ccop_hub import __version__
from ccop_hub.errors import UserError
from ccop_hub.files import replacing, write_atomically
from ccop_hub.saved_settings import save_settings

from ..common.parallel import available_cores, one_opencv_thread, ordered_map
from ..settings import SceneSettings
from .mask_polygons import mask_to_polygons
from .painting import Scene, paint_scene
from .shapes import SHAPES

BACKGROUND_LABEL = 0  # in the label images; class k of the JSON is label k
IGNORE_LABEL = 255
SPLITS = ("train", "val")
SETTINGS = "settings.yaml"

_MIN_SIZE = 96  # pixels: below it, objects are too small to tell their shapes apart
_MIN_PART = 12  # visible pixels: a smaller part of an object, cut off by what is before it, is ignored
_CROP_MARGIN = 0.15  # of the box's longer side
_PNG_COMPRESSION = 3  # of 9: a third larger files than 9 in a tenth of the time
_LABEL_COMPRESSION = 6
_OUTPUTS = (*(f"{split}2017" for split in SPLITS), "annotations", "semantic", "crops", SETTINGS)


@dataclass(frozen=True)
class _Job:
    """One image to paint: its split and its number there, from 0."""

    split: str
    index: int

    @property
    def image_id(self) -> int:
        return self.index + 1

    @property
    def file_name(self) -> str:
        return f"{self.split}_{self.image_id:06d}.png"


def run(settings: SceneSettings) -> None:
    """Draw the set and print what it holds."""
    counts = make_scenes(settings)
    sizes = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
    print(f"{sum(counts.values())} scenes ({sizes}), {len(SHAPES)} classes: {', '.join(SHAPES)}")
    print(f"scenes: {settings.out}")
    print(f"next: ccop-pretrain proposals {settings.out / 'train2017'} --out PROPOSALS")


def make_scenes(settings: SceneSettings) -> dict[str, int]:
    """Draw the set.

    An image depends on the seed, its split and its number alone: not on how many others there are, nor on the workers.

    Returns:
        Number of images by split.

    Raises:
        UserError: a setting out of range, or `out` holds something already.
    """
    counts = _split_sizes(settings)
    _claim(settings)
    workers = settings.workers or available_cores()
    save_settings(dataclasses.replace(settings, workers=workers), settings.out / SETTINGS)
    jobs = [_Job(split, index) for split in SPLITS for index in range(counts[split])]
    outcomes = ordered_map(functools.partial(_draw, settings), jobs, workers, one_opencv_thread)
    images: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    annotations: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    console = Console(file=sys.stderr)
    drawn = track(outcomes, "drawing scenes", total=len(jobs), console=console)
    for job, (image, objects) in zip(jobs, drawn, strict=True):
        images[job.split].append(image)
        annotations[job.split].extend(objects)
    for split in SPLITS:
        path = settings.out / "annotations" / f"instances_{split}2017.json"
        text = json.dumps(_coco(settings, images[split], annotations[split]), separators=(",", ":"))
        write_atomically(path, text)
    write_atomically(settings.out / "semantic" / "classes.txt", "\n".join(("background", *SHAPES)) + "\n")
    return counts


def _split_sizes(settings: SceneSettings) -> dict[str, int]:
    if settings.images < 2:
        raise UserError(f"--images is {settings.images}; give 2 or more, one for each split")
    if not 0 < settings.val_share < 1:
        raise UserError(f"--val-share is {settings.val_share}; give a share between 0 and 1")
    if settings.size < _MIN_SIZE:
        raise UserError(f"--size is {settings.size} pixels; give {_MIN_SIZE} or more")
    if not 0 <= settings.clutter <= 1:
        raise UserError(f"--clutter is {settings.clutter}; give 0 (easy to see) to 1 (as crowded as it gets)")
    if settings.seed < 0:
        raise UserError(f"--seed is {settings.seed}; give 0 or more")
    if settings.workers is not None and settings.workers < 1:
        raise UserError(f"--workers is {settings.workers}; give 1 or more")
    val = min(max(round(settings.images * settings.val_share), 1), settings.images - 1)
    return {"train": settings.images - val, "val": val}


def _claim(settings: SceneSettings) -> None:
    out = settings.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder for the scenes")
    there = [out / name for name in _OUTPUTS if (out / name).exists()]
    if there and not settings.overwrite:
        raise UserError(
            f"{out} already holds {there[0].name}; add --overwrite to replace the set, or give another --out"
        )
    for path in there:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    (out / "annotations").mkdir(parents=True)
    for split in SPLITS:
        (out / f"{split}2017").mkdir()
        (out / "semantic" / f"{split}2017").mkdir(parents=True)
        for shape in SHAPES:
            (out / "crops" / split / shape).mkdir(parents=True)


def _save(picture: Image.Image, path: Path, compression: int = _PNG_COMPRESSION) -> None:
    with replacing(path, sync=False) as temporary:
        picture.save(temporary, format="PNG", compress_level=compression)


def _draw(settings: SceneSettings, job: _Job) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Paint and write one image with its labels and crops; return its COCO image and annotation entries."""
    # A key of its own for each split: no val image can be a train image, however many there are of either.
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
                # Unique within the split: an image has far fewer than a hundred objects.
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


def _visible_parts(scene: Scene, number: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The visible pixels of an object, and those in parts too small to mean anything."""
    mask = scene.instances == number
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < _MIN_PART
    slivers = mask & small[parts]
    return mask & ~slivers, slivers


def _bounds(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, width and height of the pixels of a mask that has some."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def _coco(settings: SceneSettings, images: list[Any], annotations: list[Any]) -> dict[str, Any]:
    return {
        "info": {
            "description": "Textured shapes that overlap, drawn procedurally; classes differ by outline alone.",
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
