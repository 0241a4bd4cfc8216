"""Read label images: one class id or instance id per pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..limits import MAX_PIXELS
from .decoding import UnreadableImageError, decode, open_regular

_FORMATS = ("PNG", "BMP", "DIB", "TIFF", "GIF")
"""Formats that keep ids as they are; the others compress with losses, or scale values to the range of 8 bits."""

_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp", "tiff_sgilog", "tiff_sgilog24")
_INTEGER_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")
_COLOUR_MODES = ("LA", "RGB", "RGBA")
_OPAQUE = 255


def read_class_ids(path: Path, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read a label image as (H, W) uint8 class ids, upright; palette images give their palette indices.

    Ids may be stored with more than 8 bits, and as grey pixels in several channels: R = G = B, and no transparency.

    Raises:
        UnreadableImageError: as for `read_rgb`, or the format is lossy, the pixels are colours, or an id is above 255.
    """
    ids = _read(path, max_pixels, _class_ids)
    if ids.size and not 0 <= ids.min() <= ids.max() <= np.iinfo(np.uint8).max:
        worst = ids.min() if ids.min() < 0 else ids.max()
        raise UnreadableImageError(path, f"a pixel of {worst}, but class ids are 0 to 255")
    return ids.astype(np.uint8)


def read_instance_ids(path: Path, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.int64]:
    """Read a label image of any integer depth as (H, W) int64 ids, upright.

    Raises:
        UnreadableImageError: as for `read_rgb`, or the format is lossy, or the image is not single-channel with integer
            values.
    """
    return _read(path, max_pixels, _single_channel).astype(np.int64)


def _read(path: Path, max_pixels: int, to_ids: Callable[[Path, Image.Image], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    with open_regular(path) as file:
        return decode(
            file, path, max_pixels, lambda image: to_ids(path, image), prepare=lambda i: _require_exact(path, i)
        )


def _require_exact(path: Path, image: Image.Image) -> None:
    """Check that an unloaded image stores its ids exactly, and that decoding will not scale them.

    Raises:
        UnreadableImageError: the format is lossy, or has 16-bit colours, of which Pillow keeps the upper 8 bits.
    """
    compression = image.info.get("compression")
    if image.format not in _FORMATS or compression in _LOSSY_TIFF:
        what = f"TIFF with {compression} compression" if image.format in _FORMATS else image.format
        raise UnreadableImageError(path, f"{what} does not keep ids exact; use PNG, or uncompressed BMP or TIFF")
    if image.mode in _COLOUR_MODES and any("16" in str(tile[-1]) for tile in getattr(image, "tile", ())):
        raise UnreadableImageError(path, "16-bit colours; use a single channel of class ids")


def _class_ids(path: Path, image: Image.Image) -> npt.NDArray[Any]:
    if image.mode not in _COLOUR_MODES:
        return _single_channel(path, image)
    pixels = np.asarray(image)
    colours = pixels[..., :-1] if image.mode.endswith("A") else pixels
    if image.mode.endswith("A") and (pixels[..., -1] != _OPAQUE).any():
        raise UnreadableImageError(path, "transparent pixels; use a single channel of class ids")
    if (colours != colours[..., :1]).any():
        raise _colours(path, image)
    return np.ascontiguousarray(colours[..., 0])


def _single_channel(path: Path, image: Image.Image) -> npt.NDArray[Any]:
    if image.mode not in _INTEGER_MODES:
        raise _colours(path, image)
    return np.array(image)


def _colours(path: Path, image: Image.Image) -> UnreadableImageError:
    return UnreadableImageError(path, f"{image.mode} pixels, not a single channel of ids; use class ids, not colours")
