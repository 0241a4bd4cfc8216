"""Read how many tiles a JPEG 2000 has: its decoder keeps the coding parameters of each, however small the tile."""

from __future__ import annotations

import math
import struct
from typing import BinaryIO

from .bounded_reads import position_kept

TILE_COST = 14_000
"""Memory in bytes per tile of up to four channels (measured as peak process memory, OpenJPEG 2.5)."""

_SIGNATURE = b"\0\0\0\x0cjP  "
_START = b"\xff\x4f\xff\x51"  # SOC and SIZ, the first two markers of a codestream (ISO/IEC 15444-1, A.4)
_SIZES = struct.Struct(">8I2x")  # of the image and the tiles; see `_count`
_MAX_CHANNELS = 4
_MAX_BOXES = 10_000


def count_tiles(file: BinaryIO) -> int:
    """Return the number of tiles of a JPEG 2000; restores the position in the file.

    Raises:
        ValueError: there is no codestream, or it has no tiles or more than four channels.
    """
    with position_kept(file):
        file.seek(0)
        if file.read(len(_SIGNATURE)) == _SIGNATURE:
            _find_codestream(file)
        else:
            file.seek(0)
        if file.read(len(_START)) != _START:
            raise ValueError("no JPEG 2000 codestream")
        file.read(4)  # length of the segment, capabilities
        return _count(file)


def _find_codestream(file: BinaryIO) -> None:
    """Move to the contents of the first `jp2c` box (ISO/IEC 15444-1, I.4)."""
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            break
        length, name = struct.unpack(">I4s", header[:8])
        size = 8
        if length == 1 and len(header) == 16:  # a 64-bit length follows
            length, size = int.from_bytes(header[8:], "big"), 16
        if name == b"jp2c":
            file.seek(at + size)
            return
        if length < size:
            break
        at += length
    raise ValueError("no JPEG 2000 codestream")


def _count(file: BinaryIO) -> int:
    sizes = file.read(_SIZES.size)
    if len(sizes) < _SIZES.size:
        raise ValueError("the JPEG 2000 codestream is truncated")
    right, bottom, _, _, width, height, left, top = (int(size) for size in _SIZES.unpack(sizes))
    if not (width and height and right > left and bottom > top):
        raise ValueError("a JPEG 2000 without tiles")
    channels = int.from_bytes(sizes[-2:], "big")
    if channels > _MAX_CHANNELS:
        raise ValueError(f"a JPEG 2000 of {channels} channels")
    columns, rows = math.ceil((right - left) / width), math.ceil((bottom - top) / height)
    return columns * rows
