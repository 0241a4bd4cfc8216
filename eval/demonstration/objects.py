"""Objects cut out of synthetic images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccop_hub.progress import Progress
from ccop_hub.synthetic.painting import Scene, paint_scene
from ccop_hub.synthetic.shapes import SHAPES

IMAGE_SIDE = 160
"""Longer side of the synthetic images, in pixels."""

CLUTTER = 1.0
"""Clutter of the synthetic images; see `paint_scene`."""

CROP_SIDE = 64
"""Side, in pixels, to which the square around each object is scaled."""

MARGIN = 0.15
"""Width of the margin around an object, relative to its longer side."""


@dataclass(frozen=True)
class Objects:
    """Objects cut out of synthetic images, the same number of every class.

    Attributes:
        crops: (N, CROP_SIDE, CROP_SIDE, 3) uint8, RGB.
        labels: (N,) index into `SHAPES`.
        owners: (N,) index of the image that each object is from.
        images: number of images.
    """

    crops: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    owners: npt.NDArray[np.int64]
    images: int


def draw_objects(seed: int, draw: int, per_class: int, progress: Progress | None = None) -> Objects:
    """Draw synthetic images until there are enough objects of every class, and cut the objects out.

    Args:
        seed: the seed.
        draw: number of the draw; draws of a seed have no image in common.
        per_class: objects of each class; further ones are left out.
        progress: counts the objects.
    """
    crops: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    owners: list[int] = []
    wanted = dict.fromkeys(SHAPES, per_class)
    images = 0
    while any(wanted.values()):
        key = np.random.SeedSequence(seed, spawn_key=(draw, images))
        scene = paint_scene(np.random.default_rng(key), IMAGE_SIDE, CLUTTER)
        for number, shape in enumerate(scene.shapes):
            if wanted[shape]:
                wanted[shape] -= 1
                crops.append(_crop(scene, number))
                labels.append(SHAPES.index(shape))
                owners.append(images)
                if progress is not None:
                    progress.advance()
        images += 1
    return Objects(np.stack(crops), np.array(labels), np.array(owners), images)


def _crop(scene: Scene, number: int) -> npt.NDArray[np.uint8]:
    """Cut out the square around an object and scale it: (CROP_SIDE, CROP_SIDE, 3) uint8.

    Parts of the square outside the image are black.
    """
    rows, columns = np.nonzero(scene.instances == number)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    side = (1 + 2 * MARGIN) * max(bottom - top, right - left)
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    # `transform` fills what is outside the image; `resize` antialiases.
    whole = (round(x), round(y), round(x + side), round(y + side))
    square = Image.fromarray(scene.image).crop(whole)
    return np.asarray(square.resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BILINEAR))
