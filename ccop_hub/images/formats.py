"""Supported image formats and file suffixes.

The list is explicit because Pillow also opens formats that run a program (EPS starts Ghostscript), are mere stubs
(HDF5, MPEG), or do not contain photographs (icons, textures). PFM is excluded too: data sets use it for depth or
disparity maps.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings

from PIL import features

# Pillow's format name -> suffixes, and the optional Pillow feature needed to decode it.
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
# TGA has no signature, so only try it on files with this suffix.
_TGA_SUFFIXES = (".tga",)

_HINTS = dict.fromkeys(_HEIF_SUFFIXES, "pip install pillow-heif to read them") | dict.fromkeys(
    (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"), "raw photographs: develop them to JPEG or TIFF"
)
_HINTS |= dict.fromkeys(
    (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar"), "unpack them; decompress tar shards"
)
_HINTS |= {".tar": "tar shards: give the folder that contains them"}


def _decoded(feature: str | None) -> bool:
    if feature is None:
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # older versions of Pillow warn about features they do not know
        return bool(features.check(feature))


_HEIF = importlib.util.find_spec("pillow_heif") is not None
IMAGE_SUFFIXES = frozenset(
    suffix for suffixes, feature in _PILLOW_FORMATS.values() if _decoded(feature) for suffix in suffixes
) | frozenset((*_TGA_SUFFIXES, *(_HEIF_SUFFIXES if _HEIF else ())))
"""Suffixes (lower case, with the dot) that the installed Pillow, and pillow-heif if installed, can decode."""


def suffix_of(name: str) -> str:
    """Return the lower-case suffix of a file name or path, with the dot; empty if there is none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - pathlib is slow for a million names


def is_image_name(name: str) -> bool:
    """Whether a file name or path has an image suffix."""
    return suffix_of(name) in IMAGE_SUFFIXES


def hint_for(suffix: str) -> str | None:
    """Suggest how to make images with this suffix readable, if possible."""
    return _HINTS.get(suffix)


def formats_to_try(suffix: str) -> tuple[str, ...]:
    """Return Pillow's names of the formats to try on a file; the contents decide, not the suffix."""
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
