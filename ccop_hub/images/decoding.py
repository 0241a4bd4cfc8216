"""Decode image files; the programs open every image here.

Memory use is bounded before decoding, only listed formats are accepted, and only regular files are opened: a FIFO would
block forever, and a device such as /dev/zero never ends.
"""

from __future__ import annotations

import io
import math
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .. import regular_files
from ..errors import UserError
from ..limits import MAX_PIXELS
from .bounded_reads import MOST_READS, BoundedReads
from .charges import IN_PYTHON, JPEG, charge, decoder
from .formats import formats_to_try, suffix_of

Result = TypeVar("Result")

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

Reduction = Callable[[tuple[int, int]], int]
"""Maps the (width, height) of an upright image to the largest factor by which it may be reduced."""

REDUCTIONS = (8, 4, 2)
"""Factors by which libjpeg can reduce an image while decoding it, which takes a fraction of the time."""

_ALPHA_BACKGROUND = (255, 255, 255)  # as in a browser
_UINT16_TO_UINT8 = 257  # 65535 / 255
_STRIP_PIXELS = 1 << 20  # pixels to convert at a time, to keep intermediate copies small
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that rotate by 90 degrees (EXIF 2.32, tag 0x0112)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
# Exceptions that Pillow's decoders raise on damaged files, depending on the format and the damage.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    RuntimeError,
)
_PILLOW_LIMIT = threading.Lock()
_READS_PER_PIXEL = 4  # by decoders in Python


class UnreadableImageError(UserError):
    """An unreadable image file.

    A `UserError` whose message names the file and the reason, for callers that do not skip the file.

    Attributes:
        path: the file.
        reason: one line, without the path.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = " ".join(reason.split())
        super().__init__(f"cannot read the image {path}: {self.reason}; replace or remove it")

    def __reduce__(self) -> tuple[type[UnreadableImageError], tuple[Path, str]]:
        return (type(self), (self.path, self.reason))


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Size and orientation of an image file.

    Attributes:
        width: width of the stored image in pixels.
        height: height of the stored image in pixels.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
    """

    width: int
    height: int
    orientation: int

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height before applying the orientation."""
        return self.width, self.height

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height after applying the orientation, as returned by every reader here."""
        return (self.height, self.width) if self.orientation in _SIDEWAYS else self.stored


def read_rgb(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file as 8-bit RGB, upright; see `decode_rgb`.

    Raises:
        UnreadableImageError: not a regular file, not an image, truncated, damaged, or larger than `max_pixels`.
    """
    with open_regular(path) as file:
        return decode_rgb(file, path, max_pixels)


def decode_rgb(file: BinaryIO, path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image as 8-bit RGB, with its EXIF orientation applied.

    Replicates greyscale to three channels, scales 16-bit channels to 8 bits, converts CMYK and palettes, composites
    alpha over white, and uses the first frame of an animation or multi-page file. Ignores colour profiles.

    Args:
        file: an image in one of the supported `formats`; the suffix does not matter.
        path: path to name in errors.
        max_pixels: maximum width x height, checked before decoding; overrides Pillow's own limit. Images that take more
            memory per pixel than 8-bit RGB count as proportionally more pixels.

    Raises:
        UnreadableImageError: not an image, truncated, damaged, or larger than `max_pixels`.
    """
    return decode(file, path, max_pixels, lambda image: _to_rgb(path, image))


def decode_pixels(
    file: BinaryIO, path: Path, max_pixels: int = MAX_PIXELS, reduction: Reduction = lambda _: 1
) -> tuple[Pixels, int]:
    """Decode an image into an array like `decode_rgb`, and reduce large JPEGs while decoding them.

    Args:
        file: as for `decode_rgb`.
        path: as for `decode_rgb`.
        max_pixels: as for `decode_rgb`; applies to the full size.
        reduction: called with the full size before any pixel is decoded.

    Returns:
        The pixels, and the factor by which they are reduced, at most `reduction(size)`: pixel (x, y) stands for the
        square of that side from (x, y) * factor on. The factor is 1 for other formats and small images. The array may
        be read-only, and have a fourth byte per pixel in its memory (see `with_padding`).

    Raises:
        UnreadableImageError: as for `decode_rgb`.
    """
    factors = []

    def prepare(image: Image.Image) -> None:
        orientation = _orientation(image)
        header = ImageHeader(image.width, image.height, orientation)
        factors.append(_reduce(image, orientation, reduction(header.upright)))

    def to_array(image: Image.Image) -> Pixels:
        is_plain = image.mode == "RGB" and not image.has_transparency_data
        return _as_array(image if is_plain else _to_rgb(path, image))

    return decode(file, path, max_pixels, to_array, prepare=prepare), factors[-1]


def with_padding(pixels: Pixels) -> Pixels:
    """Return the array that `decode_pixels` cut the three channels from, (H, W, 4), or else the pixels themselves.

    The fourth channel has no meaning. With it, rows and crops are copied in one piece.
    """
    height, width = pixels.shape[:2]
    whole = pixels.base
    if isinstance(whole, np.ndarray) and whole.size == 4 * height * width and pixels.strides == (4 * width, 4, 1):
        padded: Pixels = whole.reshape(height, width, 4)
        if np.shares_memory(padded[:1, :1, :1], pixels[:1, :1, :1]):  # not the last three channels of four
            return padded
    return pixels


def _as_array(image: Image.Image) -> Pixels:
    """Return the pixels of an RGB image, (H, W, 3), in Pillow's own memory if possible: it has four bytes a pixel."""
    if hasattr(image, "__arrow_c_array__"):  # Pillow 11.2
        import pyarrow as pa

        with suppress(ValueError):  # a large image is in several blocks of memory
            shared = pa.array(image).flatten().buffers()[1]
            return np.frombuffer(shared, np.uint8).reshape(image.height, image.width, 4)[:, :, :3]
    return np.array(image)


def _reduce(image: Image.Image, orientation: int, most: int) -> int:
    """Make Pillow decode an unloaded JPEG at a reduced size; return the factor."""
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return 1
    for factor in REDUCTIONS:
        # The last pixels of a row or column may be incomplete, but a rotation would make them the first.
        fits = orientation == 1 or not (image.width % factor or image.height % factor)
        if factor <= most and fits:
            image.draft(image.mode, (image.width // factor, image.height // factor))
            return factor
    return 1


def read_header(path: Path) -> ImageHeader:
    """Read the size and orientation of an image file without decoding its pixels.

    Raises:
        UnreadableImageError: not a regular file, or not an image.
    """
    with open_regular(path) as file:
        return decode_header(file, path)


def decode_header(file: BinaryIO, path: Path) -> ImageHeader:
    """Read the size and orientation of an encoded image; errors name `path`.

    Raises:
        UnreadableImageError: not an image.
    """
    return decode(
        file, path, math.inf, lambda image: ImageHeader(image.width, image.height, _orientation(image)), load=False
    )


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; FIFOs, sockets and devices are rejected without opening them.

    Raises:
        UnreadableImageError: the file is missing, not accessible, or not a regular file.
    """
    try:
        return regular_files.open_regular(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            reason = f"a link to {path.readlink()}, which does not exist"
        raise UnreadableImageError(path, reason) from None


def decode(
    file: BinaryIO,
    path: Path,
    max_pixels: float,
    use: Callable[[Image.Image], Result],
    load: bool = True,
    prepare: Callable[[Image.Image], None] = lambda _: None,
) -> Result:
    """Open an image, check its size, call `prepare`, load it, apply its orientation, and return `use(image)`.

    Raises:
        UnreadableImageError: as for `decode_rgb`.
    """
    with _damage_named(file, path):
        reads = BoundedReads(file)
        try:
            return _attempt(reads, path, max_pixels, use, load, prepare)
        except ValueError as error:
            # Pillow rejects PNGs with megabytes of text (such as generator parameters) or a huge colour profile.
            if "MAX_TEXT" not in str(error):
                raise
            return _attempt(BoundedReads(_without_metadata(reads)), path, max_pixels, use, load, prepare)


def _attempt(
    file: BoundedReads,
    path: Path,
    max_pixels: float,
    use: Callable[[Image.Image], Result],
    load: bool,
    prepare: Callable[[Image.Image], None],
) -> Result:
    with _open_any_size(file, suffix_of(path.name)) as image:
        _require_affordable(path, image, file, max_pixels)
        prepare(image)
        if load:
            file.is_jpeg = image.format in JPEG
            if decoder(image) in IN_PYTHON:
                file.left = MOST_READS + _READS_PER_PIXEL * image.width * image.height
                file.is_plain_ppm = decoder(image) == "ppm_plain"
            image.load()
            _turn_upright(image)
        return use(image)


@contextmanager
def _damage_named(file: BinaryIO, path: Path) -> Iterator[None]:
    """Convert Pillow's exceptions for damaged files into `UnreadableImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about damaged metadata are harmless here
            yield
    except UnidentifiedImageError:
        empty = file.seek(0, os.SEEK_END) == 0
        raise UnreadableImageError(path, "empty file" if empty else "not an image, or a damaged header") from None
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(path, str(error)) from None
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImageError(path, reason) from None
    except MemoryError:
        raise UnreadableImageError(path, "not enough memory to decode it") from None


def _open_any_size(file: BoundedReads, suffix: str) -> Image.Image:
    """Read an image header without Pillow's pixel limit, a global that may be lower than `max_pixels`."""
    formats = formats_to_try(suffix)
    with _PILLOW_LIMIT:
        saved = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = saved


def _require_affordable(path: Path, image: Image.Image, file: BoundedReads, max_pixels: float) -> None:
    if max_pixels == math.inf:
        return
    cost = charge(image, cast(BinaryIO, file))
    if cost.pixels > max_pixels:
        size = ", ".join(filter(None, (f"{image.width} x {image.height} pixels", cost.reason)))
        raise UnreadableImageError(path, f"{size}, more than the limit of {max_pixels}")


def _without_metadata(file: BoundedReads) -> BinaryIO:
    """Copy a PNG without its text and colour profile."""
    file.seek(0)
    kept = io.BytesIO()
    kept.write(file.read(len(_PNG_SIGNATURE)))
    while len(header := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", header)
        body = file.read(length + 4)  # includes the checksum
        if name not in _PNG_METADATA:
            kept.write(header + body)
    kept.seek(0)
    return kept


def _orientation(image: Image.Image) -> int:
    with suppress(*_DAMAGE, ZeroDivisionError):
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
        if isinstance(found, int) and 1 <= found <= 8:
            return found
    return 1


def _turn_upright(image: Image.Image) -> None:
    """Apply the EXIF orientation; treat images with damaged metadata as upright."""
    with suppress(*_DAMAGE, ZeroDivisionError):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(path: Path, image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnreadableImageError(path, "floating-point pixels have no known range; use 8 or 16 bits per channel")
    if image.mode == "RGB" and not image.has_transparency_data:
        return image.convert("RGB")  # copies, dropping the file handle
    result = Image.new("RGB", image.size)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        result.paste(_strip_to_rgb(path, strip), (0, top))
    return result


def _strip_to_rgb(path: Path, strip: Image.Image) -> Image.Image:
    if strip.mode.startswith("I"):
        strip = _sixteen_to_eight_bits(path, strip)
    if strip.has_transparency_data:
        pixels = strip.convert("RGBA")
        background = Image.new("RGBA", pixels.size, (*_ALPHA_BACKGROUND, 255))
        return Image.alpha_composite(background, pixels).convert("RGB")
    return strip.convert("RGB")


def _sixteen_to_eight_bits(path: Path, image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.int64)
    if values.size and (values.min() < 0 or values.max() > np.iinfo(np.uint16).max):
        raise UnreadableImageError(path, "32-bit integer pixels have no known range; use 8 or 16 bits per channel")
    return Image.fromarray(((values + _UINT16_TO_UINT8 // 2) // _UINT16_TO_UINT8).astype(np.uint8))
