"""Crop two views of an image and keep the boxes that survive in both (CCOP, arXiv 2111.13651, section 3.1).

Randomness is kept separate from geometry: `draw_views` draws the numbers, and `two_views` is a pure function of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import hflip, pil_to_tensor

from ..common.seeding import seeded_cpu
from ..settings import ViewSettings

Boxes = NDArray[np.float32]
"""(N, 4) float32 xyxy, in pixels."""

REFERENCE_SIZE = 224
"""View side in pixels at which `ViewSettings.min_box_area` applies."""


class Crop(NamedTuple):
    """A crop of an image, in pixels: top, left, height, width."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class ViewDraws:
    """All random draws for two views.

    Attributes:
        tries: candidate crops of the first and of the second view, in order.
        flips: uniform in [0, 1) per view; a view is mirrored if the value is at least 0.5.
        swap: uniform in [0, 1); the views are swapped if the value is below 0.5.
    """

    tries: tuple[Sequence[Crop], Sequence[Crop]]
    flips: tuple[float, float]
    swap: float


@dataclass(frozen=True)
class View:
    """Geometry of one view: its crop and its boxes.

    Attributes:
        crop: the crop that is resized to the view.
        flipped: whether the view is flipped horizontally after resizing.
        boxes: (n, 4) float32 xyxy, in pixels of the view.
    """

    crop: Crop
    flipped: bool
    boxes: Boxes


@dataclass(frozen=True)
class TwoViews:
    """The query and key views; row i of both `boxes` is the same object.

    Attributes:
        query: view for the query encoder.
        key: view for the key encoder.
        kept: (n,) int64, index into the image's boxes of each box in the views.
    """

    query: View
    key: View
    kept: NDArray[np.int64]


def draw_views(size: tuple[int, int], seed: int, settings: ViewSettings) -> ViewDraws:
    """Draw the random numbers for two views of an image.

    Args:
        size: (width, height) of the image in pixels.
        seed: seed of all draws; torch's global generator is left unchanged.
        settings: crop areas, aspect ratios and number of tries.
    """
    width, height = size
    canvas = torch.empty((1, height, width), device="meta")
    area, ratio = list(settings.crop_area), list(settings.crop_ratio)
    with seeded_cpu(seed):
        flip_first, flip_second, swap = torch.rand(3, dtype=torch.float64).tolist()
        tries = [
            [Crop(*RandomResizedCrop.get_params(canvas, area, ratio)) for _ in range(settings.crop_tries)]
            for _ in range(2)
        ]
    return ViewDraws((tries[0], tries[1]), (flip_first, flip_second), swap)


def two_views(boxes: Boxes, draws: ViewDraws, settings: ViewSettings) -> TwoViews:
    """Choose both crops, keep the boxes that survive in both, then flip, clamp and swap.

    A box survives if both crops keep more than `kept_share` of its area and, after resizing, it is larger than
    `min_box_area` in both. Boxes are clamped to 0 .. image_size - 1 last, as in the authors' code.

    Args:
        boxes: (N, 4) float32 xyxy, in image pixels; N may be 0.
        draws: the random draws.
        settings: sizes and thresholds.
    """
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    size = settings.image_size
    crops = [choose_crop(boxes, tries, settings) for tries in draws.tries]
    inside = [boxes_in_crop(boxes, crop, size) for crop in crops]
    survives = np.ones(len(boxes), dtype=bool)
    for crop, placed in zip(crops, inside, strict=True):
        smallest = settings.min_box_area * (size / REFERENCE_SIZE) ** 2
        survives &= (kept_share(boxes, crop) > settings.kept_share) & (_area(placed) > smallest)
    views = []
    for crop, placed, flip in zip(crops, inside, draws.flips, strict=True):
        flipped = flip >= 0.5
        placed = placed[survives]
        if flipped:
            placed = np.stack([size - placed[:, 2], placed[:, 1], size - placed[:, 0], placed[:, 3]], axis=1)
        views.append(View(crop, flipped, placed.clip(0, size - 1)))
    if draws.swap < 0.5:
        views.reverse()
    return TwoViews(query=views[0], key=views[1], kept=np.flatnonzero(survives))


def choose_crop(boxes: Boxes, tries: Sequence[Crop], settings: ViewSettings) -> Crop:
    """Return the first crop that keeps `min_boxes` boxes (or all, if there are fewer), or else the one that keeps most.

    Ties go to the last crop.
    """
    enough = min(settings.min_boxes, len(boxes))
    best, most = tries[0], -1
    for crop in tries:
        count = int((kept_share(boxes, crop) > settings.kept_share).sum())
        if count >= most:
            best, most = crop, count
        if count >= enough:
            break
    return best


def kept_share(boxes: Boxes, crop: Crop) -> NDArray[np.float32]:
    """Compute the share of each box's area inside the crop, (N, 4) -> (N,) float32; 0 for an empty box."""
    whole = _area(boxes)
    part = _area(_clip_to(boxes, crop))
    share: NDArray[np.float32] = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return share


def boxes_in_crop(boxes: Boxes, crop: Crop, size: int) -> Boxes:
    """Clip (N, 4) xyxy boxes to the crop, and convert them from image pixels to pixels of the resized view."""
    corner = np.array([crop.left, crop.top] * 2, dtype=np.float32)
    scale = np.array([size / crop.width, size / crop.height] * 2, dtype=np.float32)
    return (_clip_to(boxes, crop) - corner) * scale


def render_view(image: Image.Image, view: View, size: int) -> Tensor:
    """Crop a PIL RGB image and resize it with PIL's bilinear filter: -> (3, size, size) uint8 RGB."""
    top, left, height, width = view.crop
    part = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
    pixels: Tensor = pil_to_tensor(part)
    return hflip(pixels) if view.flipped else pixels


def _clip_to(boxes: Boxes, crop: Crop) -> Boxes:
    low = np.array([crop.left, crop.top] * 2, dtype=np.float32)
    high = np.array([crop.left + crop.width, crop.top + crop.height] * 2, dtype=np.float32)
    return np.clip(boxes, low, high)


def _area(boxes: Boxes) -> NDArray[np.float32]:
    area: NDArray[np.float32] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area
