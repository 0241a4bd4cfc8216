"""Charge images for the memory and time that decoding them takes, before decoding."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from .bounded_reads import position_kept
from .jpeg2000_tiles import TILE_COST, count_tiles
from .jpeg_scans import read_scans

JPEG = ("JPEG", "MPO")
_READ_WHOLE = ("WEBP", "AVIF", "HEIF")

IN_PYTHON = ("ppm", "ppm_plain", "bmp_rle", "qoi")
"""Pillow's decoders that are written in Python, most of them for unusual variants of a format."""

_PYTHON_TIME = 40
"""Pixels that other decoders decode in the time of one in Python: up to 2 microseconds (Pillow 13, noise as QOI)."""

_BUFFER_COST = 4
"""Memory of Pillow's decoding buffer, in bytes per pixel."""

_RGB_COST = _BUFFER_COST + 4
"""Peak memory for decoding 8-bit RGB, in bytes per pixel: the decoding buffer and the result."""

_DECODER_COST = {"WEBP": 10, "JPEG2000": 17, "AVIF": 7}
"""Additional bytes per pixel for each format (measured as peak process memory, Pillow 13, noise of 16 megapixels)."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What decoding an image takes.

    Attributes:
        pixels: number of pixels of 8-bit RGB that take as much memory, or time.
        reason: why they are more than the pixels of the image; empty if they are not.
    """

    pixels: int
    reason: str


def charge(image: Image.Image, file: BinaryIO) -> Charge:
    """Return what decoding an unloaded image takes.

    Raises:
        ValueError: a JPEG of too many scans, or a JPEG 2000 with a damaged header.
    """
    pixels = image.width * image.height
    name, cost, more = image.format or "", float(_RGB_COST), 0
    if decoder(image) in IN_PYTHON:
        counted = pixels * _PYTHON_TIME
        return Charge(counted, f"which take the time of {counted} in this variant of {name}")
    if name in JPEG:
        # The result is made after the coefficients are freed.
        name, cost = "progressive JPEG", max(cost, _BUFFER_COST + read_scans(file).coefficient_bytes)
    elif name == "JPEG2000":
        more = TILE_COST * (count_tiles(file) - 1)
    elif name in _READ_WHOLE:
        more = _size(file)
    cost += _DECODER_COST.get(name, 0)
    counted = math.ceil((pixels * cost + more) / _RGB_COST)
    return Charge(counted, "" if counted == pixels else f"which take the memory of {counted} as {name}")


def decoder(image: Image.Image) -> str:
    """Return Pillow's name of the decoder of an unloaded image; empty if the format's plugin decodes by itself."""
    tiles = getattr(image, "tile", None)
    return str(tiles[0][0]) if tiles else ""


def _size(file: BinaryIO) -> int:
    with position_kept(file):
        return int(file.seek(0, os.SEEK_END))
