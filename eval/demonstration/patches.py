"""Squares of synthetic images, half of them on objects and half on the background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccop_hub.progress import Progress
from ccop_hub.synthetic.painting import NO_OBJECT, Scene, paint_scene

CLASSES = ("background", "object")

IMAGE_SIDE = 160
"""Longer side of the synthetic images, in pixels."""

PATCH_SIDE = 32
"""Side of a square in the image, in pixels; the same for both classes, so that it shows nothing of them."""

SHOWN_SIDE = 64
"""Side to which squares are scaled for the networks, in pixels."""

LEAST_OBJECT, MOST_BACKGROUND = 0.6, 0.1
"""Share of the pixels on objects: the least in a square of the class `object`, the most in one of `background`."""

_PER_SCENE = 3
"""Squares of each class from an image."""


@dataclass(frozen=True)
class Patches:
    """Squares of synthetic images, the same number of each class.

    Attributes:
        pixels: (N, SHOWN_SIDE, SHOWN_SIDE, 3) uint8, RGB.
        labels: (N,) index into `CLASSES`.
        owners: (N,) index of the image that each square is from.
        images: number of images.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    owners: npt.NDArray[np.int64]
    images: int


def draw_patches(seed: int, draw: int, per_class: int, progress: Progress | None = None) -> Patches:
    """Draw synthetic images and cut squares out of them until there are enough of each class.

    Args:
        seed: the seed.
        draw: number of the draw; draws of a seed have no image in common.
        per_class: squares of each class.
        progress: counts the squares.
    """
    pixels: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    owners: list[int] = []
    images = 0
    while len(labels) < per_class * len(CLASSES):
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(draw, images)))
        scene = paint_scene(generator, IMAGE_SIDE)
        picture = Image.fromarray(scene.image)
        for label, (top, left) in _places(scene, generator):
            if labels.count(label) == per_class:
                continue
            square = picture.crop((left, top, left + PATCH_SIDE, top + PATCH_SIDE))
            pixels.append(np.asarray(square.resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BILINEAR)))
            labels.append(label)
            owners.append(images)
            if progress is not None:
                progress.advance()
        images += 1
    return Patches(np.stack(pixels), np.array(labels), np.array(owners), images)


def _places(scene: Scene, generator: np.random.Generator) -> list[tuple[int, tuple[int, int]]]:
    """Choose squares: the class and the top left corner of each, at random among all that are possible."""
    windows = np.lib.stride_tricks.sliding_window_view(scene.instances != NO_OBJECT, (PATCH_SIDE, PATCH_SIDE))
    share = windows[::4, ::4].mean((2, 3))
    chosen = []
    for label, possible in enumerate((share <= MOST_BACKGROUND, share >= LEAST_OBJECT)):
        corners = 4 * np.argwhere(possible)
        picked = generator.permutation(len(corners))[:_PER_SCENE]
        chosen += [(label, (int(top), int(left))) for top, left in corners[picked]]
    return chosen
