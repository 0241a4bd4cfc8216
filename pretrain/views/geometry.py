"""Crop two views of an image and keep the boxes that survive in both (CCOP, arXiv 2111.13651, section 3.1).

Randomness is kept separate from geometry: `draws` draws the numbers, and `two_views` is a pure function of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.dlpack import from_dlpack

from ccop_hub.images import Pixels, with_padding

from ..settings import ViewSettings
from .draws import Crop, ViewDraws

Boxes = NDArray[np.float32]
"""(N, 4) float32 xyxy, in pixels."""

KEPT_PIXELS = 2
"""Minimum ratio of a crop's side, after a reduction, to the view's."""

REFERENCE_SIZE = 224
"""View side in pixels at which `ViewSettings.min_box_area` applies."""


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
    chosen = [_chosen(boxes, tries, settings) for tries in draws.tries]
    crops = [crop for crop, _ in chosen]
    inside = [boxes_in_crop(boxes, crop, size) for crop in crops]
    survives = np.ones(len(boxes), dtype=bool)
    smallest = settings.min_box_area * (size / REFERENCE_SIZE) ** 2
    for (_, is_kept), placed in zip(chosen, inside, strict=True):
        survives &= is_kept & (_area(placed) > smallest)
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
    return _chosen(boxes, tries, settings)[0]


def _chosen(boxes: Boxes, tries: Sequence[Crop], settings: ViewSettings) -> tuple[Crop, NDArray[np.bool_]]:
    """Return the chosen crop, and which boxes it keeps."""
    enough = min(settings.min_boxes, len(boxes))
    best, most = (tries[0], np.zeros(len(boxes), dtype=bool)), -1
    for crop in tries:
        is_kept = kept_share(boxes, crop) > settings.kept_share
        count = int(np.count_nonzero(is_kept))
        if count >= most:
            best, most = (crop, is_kept), count
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


def most_reduction(views: TwoViews, size: int) -> int:
    """Return the largest factor by which an image may be reduced before views of side `size` are cut from it.

    Both crops keep at least `KEPT_PIXELS` times as many pixels a side as the views, so that the views hardly change.
    """
    smallest = min(min(view.crop.width, view.crop.height) for view in (views.query, views.key))
    return max(1, smallest // (KEPT_PIXELS * size))


def render_view(pixels: Pixels, view: View, size: int, reduction: int = 1) -> Tensor:
    """Crop an image and resize it with an antialiased bilinear filter, as Pillow's: -> (3, size, size) uint8 RGB.

    Args:
        pixels: the image, whose pixels each stand for `reduction` x `reduction` of those that the crop counts.
        view: the view.
        size: side of the view in pixels.
        reduction: 1, 2, 4 or 8.
    """
    top, left, height, width = view.crop
    pixels = with_padding(pixels)
    if reduction == 1:
        # Through DLPack, since `from_numpy` warns of read-only arrays, though nothing here writes to one.
        part = from_dlpack(pixels[top : top + height, left : left + width]).permute(2, 0, 1)
        resized = functional.interpolate(part[None], (size, size), mode="bilinear", antialias=True)[0]
    else:
        # torch cannot crop between pixels; Pillow takes twice as long.
        box = (left / reduction, top / reduction, (left + width) / reduction, (top + height) / reduction)
        image = _as_image(pixels).resize((size, size), Image.Resampling.BILINEAR, box)
        resized = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    resized = resized[:3]
    return (resized.flip(-1) if view.flipped else resized).contiguous()


def _as_image(pixels: Pixels) -> Image.Image:
    """Return the image of (H, W, 3) pixels, or of padded ones, without a copy of these."""
    height, width, channels = pixels.shape
    if channels == 3:
        return Image.fromarray(pixels)
    return Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1)


def _clip_to(boxes: Boxes, crop: Crop) -> Boxes:
    low = np.array([crop.left, crop.top] * 2, dtype=np.float32)
    high = np.array([crop.left + crop.width, crop.top + crop.height] * 2, dtype=np.float32)
    return np.clip(boxes, low, high)


def _area(boxes: Boxes) -> NDArray[np.float32]:
    area: NDArray[np.float32] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area
