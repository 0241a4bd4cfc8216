"""Random draws for two views: candidate crops, flips and the swap.

The crops are those that torchvision's `RandomResizedCrop.get_params` would draw one after another from torch's CPU
generator, in a tenth of the time: it makes about ten calls of torch for each crop, this module ten for all of them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..settings import ViewSettings

_ATTEMPTS = 10
"""Attempts per crop before torchvision falls back to a central crop."""

_WORDS_PER_CROP = 2 * _ATTEMPTS + 2
"""Maximum number of 32-bit words of the generator per crop: area and ratio of each attempt, and the position."""


_FIRST_WORDS = 6
"""Words of the flips and the swap, which are float64 and take two each."""


_local = threading.local()


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


def draw_views(size: tuple[int, int], seed: int, settings: ViewSettings) -> ViewDraws:
    """Draw the random numbers for two views of an image.

    Args:
        size: (width, height) of the image in pixels.
        seed: seed of all draws; torch's global generator is left unchanged.
        settings: crop areas, aspect ratios and number of tries.
    """
    words = _Words(seed, 2 * settings.crop_tries * _WORDS_PER_CROP, settings)
    tries = [[words.crop(*size) for _ in range(settings.crop_tries)] for _ in range(2)]
    flip_first, flip_second, swap = words.first
    return ViewDraws((tries[0], tries[1]), (flip_first, flip_second), swap)


class _Words:
    """The output of a torch generator, each 32-bit word read in every way that a crop may use it.

    torch consumes one word for a float32 and for an integer below 2^32. Drawing many numbers at once yields the same
    values as drawing them one by one.
    """

    def __init__(self, seed: int, count: int, settings: ViewSettings) -> None:
        generator = torch.Generator()
        low, high = torch.log(torch.tensor(settings.crop_ratio)).tolist()
        self.first: list[float] = torch.rand(3, dtype=torch.float64, generator=generator.manual_seed(seed)).tolist()
        after = generator.get_state()
        self._areas: list[float] = torch.empty(count).uniform_(*settings.crop_area, generator=generator).tolist()
        generator.set_state(after)
        self._ratios: list[float] = torch.empty(count).uniform_(low, high, generator=generator).exp().tolist()
        # torch returns no whole words, but its generator is NumPy's Mersenne Twister, seeded with 32 bits.
        twister = _twister()
        twister.seed(seed & 0xFFFFFFFF)
        words = twister.randint(2**32, size=_FIRST_WORDS + count, dtype=np.uint32)
        self._integers: list[int] = words[_FIRST_WORDS:].tolist()
        self._ratio_range = settings.crop_ratio
        self._place = 0

    def crop(self, width: int, height: int) -> Crop:
        """Draw the next crop of an image as `RandomResizedCrop.get_params` does."""
        area, place = height * width, self._place
        for _ in range(_ATTEMPTS):
            wanted, ratio = area * self._areas[place], self._ratios[place + 1]
            place += 2
            w, h = round(math.sqrt(wanted * ratio)), round(math.sqrt(wanted / ratio))
            if 0 < w <= width and 0 < h <= height:
                self._place = place + 2
                top, left = self._integers[place] % (height - h + 1), self._integers[place + 1] % (width - w + 1)
                return Crop(top, left, h, w)
        self._place = place
        return _central_crop(width, height, self._ratio_range)


def _twister() -> np.random.RandomState:
    """Return this thread's generator: creating one takes longer than all the draws of an image."""
    if not hasattr(_local, "twister"):
        _local.twister = np.random.RandomState(0)
    twister: np.random.RandomState = _local.twister
    return twister


def _central_crop(width: int, height: int, ratios: tuple[float, float]) -> Crop:
    """Return torchvision's fallback: the largest central crop with an allowed aspect ratio."""
    least, greatest = ratios
    ratio = width / height
    w, h = width, height
    if ratio < least:
        h = round(width / least)
    elif ratio > greatest:
        w = round(height * greatest)
    return Crop((height - h) // 2, (width - w) // 2, h, w)
