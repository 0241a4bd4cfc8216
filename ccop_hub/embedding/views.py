"""Images and their boxes at the size that the network sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import pil_to_tensor

from ..errors import UserError
from ..image_sources.stored_images import ImageSource

Resize = Literal["crop", "square", "short-side"]

CROP_RATIO = 256 / 224
"""Shorter side before the centre crop, relative to the crop (the usual ImageNet transform)."""

LONGEST_RATIO = 1333 / 800
"""Longest side relative to the shorter one with `short-side` (Detectron2's test size)."""

Boxes = npt.NDArray[np.float32]
"""(n, 4) xyxy in absolute pixels of the upright image."""


@dataclass(frozen=True)
class View:
    """One image as the network sees it.

    Attributes:
        index: index of the image in its source.
        pixels: (3, H, W) uint8 RGB; empty if the image is unusable.
        boxes: (n, 4) float32 xyxy in pixels of the original image.
        scaled: the same boxes in pixels of `pixels`.
        problem: why the image is unusable; empty if it is usable.
    """

    index: int
    pixels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    boxes: Tensor = field(default_factory=lambda: torch.empty(0, 4))
    scaled: Tensor = field(default_factory=lambda: torch.empty(0, 4))
    problem: str = ""


class Views(Dataset[View]):
    """The images of a source at the size that the network sees, with their boxes.

    Args:
        source: the images.
        resize: `crop` (shorter side to `image_size` x 256 / 224, then the central square), `square` (both sides to
            `image_size`) or `short-side` (shorter side to `image_size`, longer side at most 1333 / 800 times that).
        image_size: side in pixels.
        max_pixels: largest image to read, as width x height.
        boxes_of: returns the boxes of an image of a given width and height; None without boxes.
    """

    def __init__(
        self,
        source: ImageSource,
        resize: Resize,
        image_size: int,
        max_pixels: int,
        boxes_of: Callable[[int, tuple[int, int]], Boxes] | None = None,
    ) -> None:
        self.source, self.resize, self.image_size, self.max_pixels = source, resize, image_size, max_pixels
        self.boxes_of = boxes_of

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> View:
        """Return an image; one that cannot be used has a `problem`."""
        try:
            image = self.source[index].read(self.max_pixels)
            boxes = None if self.boxes_of is None else self.boxes_of(index, image.size)
        except UserError as error:
            return View(index, problem=getattr(error, "reason", str(error)))
        shown = resized(image, self.resize, self.image_size)
        if boxes is None:
            return View(index, pil_to_tensor(shown))
        factors = np.array([shown.width / image.width, shown.height / image.height] * 2, dtype=np.float32)
        return View(index, pil_to_tensor(shown), torch.from_numpy(boxes), torch.from_numpy(boxes * factors))


def resized(image: Image.Image, resize: Resize, size: int) -> Image.Image:
    """Resize an image bilinearly, with antialiasing; see `Views` for the three ways."""
    bilinear = Image.Resampling.BILINEAR
    if resize == "square":
        return image.resize((size, size), bilinear)
    if resize == "short-side":
        scale = min(size / min(image.size), round(size * LONGEST_RATIO) / max(image.size))
        width, height = (max(1, round(side * scale)) for side in image.size)
        return image.resize((width, height), bilinear)
    # The part of the image that the crop shows, so that an extreme aspect ratio takes no more memory.
    side = min(image.size) / CROP_RATIO
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), bilinear, box=(left, top, left + side, top + side))
