"""Training crops: randomly scaled, cropped and flipped, as a function of (seed, position)."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ccop_hub.normalization import PIXEL_MEAN

from ..common.compute import derived_seed
from ..protocols import SegmentationProtocol
from .dataset import LabelledImages
from .label_table import IGNORED

SCALES = (0.5, 2.0)
"""Range of the uniform random scale (both protocols)."""

ORDER_DRAW, CROP_DRAW = 1, 2
"""Separate the seeds of different draws."""


class TrainingCrops(Dataset[tuple[Tensor, Tensor]]):
    """Random crops indexed by position: ((3, S, S) uint8 RGB, (S, S) int64 class indices).

    Position p belongs to epoch p // n over the n images. (seed, epoch) determines the order and (seed, p) the crop, so
    a resumed run sees the same crops as an uninterrupted one.

    Args:
        data: the images.
        protocol: the protocol, including departures.
        seed: seed of order and crops.
        length: number of positions.
    """

    def __init__(self, data: LabelledImages, protocol: SegmentationProtocol, seed: int, length: int) -> None:
        self.data, self.protocol, self.seed, self.length = data, protocol, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        count = len(self.data.train.images)
        order = np.random.default_rng(derived_seed(self.seed, ORDER_DRAW, position // count)).permutation(count)
        image, label = self.data.read(self.data.train, int(order[position % count]))
        draw = random.Random(derived_seed(self.seed, CROP_DRAW, position))
        pixels, classes = random_crop(image, label, self.protocol, draw)
        return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(classes).long()


def base_size(image: Image.Image, protocol: SegmentationProtocol) -> tuple[int, int]:
    """Width and height, in pixels, to resize an image to: the protocol's, or the image's own."""
    return protocol.scale_to if all(protocol.scale_to) else image.size


def random_crop(
    image: Image.Image, label: np.ndarray, protocol: SegmentationProtocol, draw: random.Random
) -> tuple[np.ndarray, np.ndarray]:
    """Scale by a random factor, crop a square, and flip with probability 1/2.

    Padding outside the image has the mean colour and is labelled as ignored.

    Args:
        image: RGB.
        label: (H, W) uint8 class indices.
        protocol: the protocol, which sets the sizes.
        draw: random number generator.

    Returns:
        (S, S, 3) uint8 RGB and (S, S) uint8 class indices.
    """
    side = protocol.crop_size
    width, height = base_size(image, protocol)
    factor = draw.uniform(*SCALES)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    scaled = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    classes = np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))
    left, top = draw.randint(0, max(0, size[0] - side)), draw.randint(0, max(0, size[1] - side))
    scaled, classes = scaled[top : top + side, left : left + side], classes[top : top + side, left : left + side]
    pixels = np.empty((side, side, 3), dtype=np.uint8)
    pixels[:] = np.round(PIXEL_MEAN).astype(np.uint8)
    target = np.full((side, side), IGNORED, dtype=np.uint8)
    pixels[: scaled.shape[0], : scaled.shape[1]] = scaled
    target[: classes.shape[0], : classes.shape[1]] = classes
    if draw.random() < 0.5:
        pixels, target = pixels[:, ::-1].copy(), target[:, ::-1].copy()
    return pixels, target
