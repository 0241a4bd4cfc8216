"""A folder of images: listing it, and reading any of its files as 8-bit RGB."""

from __future__ import annotations

import os
import struct
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm"})
# Only these decoders are tried: a file called .jpg must not start Pillow's PostScript interpreter.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
MAX_PIXELS = 89_478_485  # Pillow's own Image.MAX_IMAGE_PIXELS: 256 MiB as 24-bit RGB
_ALPHA_BACKGROUND = (255, 255, 255)  # what a browser shows behind a transparent picture
_UINT16_TO_UINT8 = 257  # 65535 / 255
_PILLOW_LIMIT = threading.Lock()


class UnreadableImageError(Exception):
    """An image file that cannot be used.

    Attributes:
        path: the file.
        reason: one line for a person, without the path.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = " ".join(reason.split())
        super().__init__(f"{path}: {self.reason}")

    def __reduce__(self) -> tuple[type[UnreadableImageError], tuple[Path, str]]:
        return (type(self), (self.path, self.reason))


def list_images(root: Path) -> list[str]:
    """Paths of all images under `root`, relative, POSIX, sorted by code point.

    Folders are read recursively. A linked folder is followed too, each real folder once, so a loop of links ends.
    Hidden files and folders (a leading dot) are left out, and so is every suffix not in `IMAGE_SUFFIXES`.

    Raises:
        UserError: `root` is no folder, cannot be read, or holds no image.
    """
    if not root.is_dir():
        what = "is a file, not a folder of images" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; give the folder that holds the images")
    images: list[str] = []
    seen: set[tuple[int, int]] = set()
    # Linked folders wait until every real one is read: which of two paths names a folder must not depend on luck.
    pending = [(os.fspath(root), "")]
    linked: list[tuple[str, str]] = []
    while pending or linked:
        folder, prefix = pending.pop() if pending else linked.pop(0)
        status = os.stat(folder)  # noqa: PTH116 - a Path for each of a million folders is slow
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        try:
            with os.scandir(folder) as scan:
                entries = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            raise UserError(f"cannot read the folder {folder} ({error.strerror}); mend its permissions") from None
        for entry in entries:
            if entry.is_dir():
                (linked if entry.is_symlink() else pending).append((entry.path, f"{prefix}{entry.name}/"))
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and entry.is_file():  # noqa: PTH122
                images.append(prefix + entry.name)
    if not images:
        raise UserError(f"{root} holds no image; looked for {', '.join(sorted(IMAGE_SUFFIXES))} in it and below")
    return sorted(images)


def read_rgb(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file as 8-bit RGB, upright; see `decode_rgb`.

    Raises:
        UnreadableImageError: no such file, not an image, truncated, damaged, or larger than `max_pixels`.
    """
    try:
        with path.open("rb") as file:
            return decode_rgb(file, path, max_pixels)
    except (OSError, ValueError) as error:
        raise UnreadableImageError(path, getattr(error, "strerror", None) or str(error)) from None


def decode_rgb(file: BinaryIO, path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image as 8-bit RGB, turned upright as its EXIF orientation says.

    Grey becomes three equal channels; 16 bits a channel are scaled to 8; CMYK and palettes are converted; alpha is
    composited over white; of an animation or a stack of pages the first frame is taken. Colour profiles are ignored.

    Args:
        file: in one of the formats JPEG, PNG, WebP, TIFF, BMP, GIF, PPM, whatever its name.
        path: what to call it in an error.
        max_pixels: width x height beyond which an image is refused before it is decoded. It stands in for Pillow's own
            limit, below that and above.

    Raises:
        UnreadableImageError: not an image, truncated, damaged, or larger than `max_pixels`.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata, which is harmless here.
            warnings.simplefilter("ignore")
            with _open_any_size(file) as image:
                if image.width * image.height > max_pixels:
                    raise UnreadableImageError(
                        path, f"{image.width} x {image.height} pixels, more than the limit of {max_pixels}"
                    )
                image.load()
                return _to_rgb(path, _upright(image))
    except UnidentifiedImageError:
        empty = file.seek(0, os.SEEK_END) == 0
        raise UnreadableImageError(path, "empty file" if empty else "not an image, or a damaged header") from None
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(path, str(error)) from None
    # Pillow's decoders report damage by any of these, depending on the format and on where the damage is.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImageError(path, reason) from None
    except MemoryError:
        raise UnreadableImageError(path, "not enough memory to decode it") from None


def _open_any_size(file: BinaryIO) -> Image.Image:
    """Read an image's header without Pillow's limit on its pixels, which is a global that may be lower than ours."""
    with _PILLOW_LIMIT:
        saved = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(file, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = saved


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; metadata too damaged to hold one counts as upright."""
    try:
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, ZeroDivisionError, struct.error):
        return image.copy()


def _to_rgb(path: Path, image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _sixteen_to_eight_bits(path, image)
    elif image.mode == "F":
        raise UnreadableImageError(path, "floating-point pixels have no known range; store 8 or 16 bits a channel")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        background = Image.new("RGBA", pixels.size, (*_ALPHA_BACKGROUND, 255))
        return Image.alpha_composite(background, pixels).convert("RGB")
    # `convert` of an RGB image is a copy without the file handle.
    return image.convert("RGB")


def _sixteen_to_eight_bits(path: Path, image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.int64)
    if values.size and (values.min() < 0 or values.max() > np.iinfo(np.uint16).max):
        raise UnreadableImageError(path, "32-bit integer pixels have no known range; store 8 or 16 bits a channel")
    return Image.fromarray(((values + _UINT16_TO_UINT8 // 2) // _UINT16_TO_UINT8).astype(np.uint8))
