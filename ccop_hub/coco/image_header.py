"""An image file's size and EXIF orientation, from its header alone."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that turn an image by a quarter (EXIF 2.32, tag 0x0112)."""


class HeaderError(Exception):
    """The text says why there is no size to read."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Size of an image file.

    Attributes:
        width: of the stored pixels.
        height: of the stored pixels.
        orientation: EXIF's, 1 to 8; 1 is upright.
    """

    width: int
    height: int
    orientation: int

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the stored pixels."""
        return self.width, self.height

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height after the orientation is applied, as images are read everywhere here."""
        return (self.height, self.width) if self.orientation in _SIDEWAYS else self.stored


def read_header(file: Path | BinaryIO) -> ImageHeader:
    """Read the header of an image.

    Raises:
        HeaderError: no file, or not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                return ImageHeader(image.width, image.height, _orientation(image))
    except Image.DecompressionBombError as error:
        raise HeaderError(str(error)) from None
    except Exception as error:  # Pillow's readers raise almost anything for a damaged header
        raise HeaderError(getattr(error, "strerror", None) or "not an image, or a damaged header") from None


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata counts as upright, as where the pixels are read
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
