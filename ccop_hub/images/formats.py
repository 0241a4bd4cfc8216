"""The image formats that are decoded, and the file suffixes that mark an image.

The list is explicit, because Pillow also opens formats that run a program (EPS starts Ghostscript), are only stubs
(HDF5, MPEG), or are no pictures of a scene (icons, textures). PFM is left out too: it contains depth or disparity,
which data sets keep beside their pictures.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings

from PIL import features

# Pillow's name of the format -> its suffixes, and the optional part of Pillow that decodes it.
_PILLOW_FORMATS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "JPEG": ((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), None),
    "PNG": ((".png", ".apng"), None),
    "WEBP": ((".webp",), "webp"),
    "TIFF": ((".tif", ".tiff"), None),
    "BMP": ((".bmp",), None),
    "DIB": ((".dib",), None),
    "GIF": ((".gif",), None),
    "PPM": ((".ppm", ".pgm", ".pbm", ".pnm"), None),
    "JPEG2000": ((".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"), "jpg_2000"),
    "AVIF": ((".avif", ".avifs"), "avif"),
    "QOI": ((".qoi",), None),
    "PCX": ((".pcx",), None),
}
_HEIF_SUFFIXES = (".heic", ".heif", ".hif")
# TGA has no signature: it is only tried for files that are named so.
_TGA_SUFFIXES = (".tga",)

_HINTS = dict.fromkeys(_HEIF_SUFFIXES, "pip install pillow-heif to read them") | dict.fromkeys(
    (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"), "raw photographs: develop them to JPEG or TIFF"
)


def _decoded(feature: str | None) -> bool:
    if feature is None:
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an older Pillow warns about a part that it does not know
        return bool(features.check(feature))


_HEIF = importlib.util.find_spec("pillow_heif") is not None
IMAGE_SUFFIXES = frozenset(
    suffix for suffixes, feature in _PILLOW_FORMATS.values() if _decoded(feature) for suffix in suffixes
) | frozenset((*_TGA_SUFFIXES, *(_HEIF_SUFFIXES if _HEIF else ())))
"""Suffixes (lower case, with the dot) of the images that the installed Pillow, and pillow-heif if installed, decode."""


def suffix_of(name: str) -> str:
    """The suffix of a file name or path, in lower case, with its dot; empty if there is none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each of a million names is slow


def is_image_name(name: str) -> bool:
    """Whether a file name or path ends like an image."""
    return suffix_of(name) in IMAGE_SUFFIXES


def hint_for(suffix: str) -> str | None:
    """How to make images of files with this suffix readable, if there is a way."""
    return _HINTS.get(suffix)


def formats_to_try(suffix: str) -> tuple[str, ...]:
    """Pillow's names of the formats to try on a file with this suffix; contents decide, not the suffix."""
    tried = _all_formats()
    return (*tried, "TGA") if suffix in _TGA_SUFFIXES else tried


@functools.cache
def _all_formats() -> tuple[str, ...]:
    names = tuple(name for name, (_, feature) in _PILLOW_FORMATS.items() if _decoded(feature))
    if not _HEIF:
        return names
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*names, "HEIF")
