"""Read how a JPEG is divided into scans, which decides what decoding it costs.

A decoder keeps the coefficients of the whole image while it reads a JPEG of several scans, and each scan, though it may
be ten bytes long, visits all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO

from .bounded_reads import position_kept

MAX_SCANS = 64
"""Most scans of a JPEG to decode. Encoders write 6 to 18; with this many, an image at the pixel limit takes 3 s."""

_MAX_SEGMENTS = 100_000  # a second; metadata of gigabytes takes fewer
_COEFFICIENT = 2  # bytes: libjpeg's JCOEF
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC are not frames
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
"""A marker with a segment, or the end. 0xff 0x00 stands for the byte 0xff; 0x01 and 0xd0 to 0xd8 have no segment."""

_CHUNK = 1 << 18
_FEW = 64  # bytes to read where a header segment is expected next


@dataclass(frozen=True, slots=True)
class Scans:
    """The scans of a JPEG.

    Attributes:
        count: number of scans.
        coefficient_bytes: memory in bytes per pixel for coefficients; 0 if a single scan has the whole image.
    """

    count: int
    coefficient_bytes: float


def read_scans(file: BinaryIO) -> Scans:
    """Read the scans of a JPEG, up to its end or damage; restores the position in the file.

    Raises:
        ValueError: more than `MAX_SCANS` scans, or far more tables and comments than any encoder writes.
    """
    with position_kept(file):
        file.seek(0)
        return _scans(file)


def _scans(file: BinaryIO) -> Scans:
    components: list[tuple[int, int]] = []  # sampling factors
    progressive, count, segments = False, 0, 0
    data, at, size = b"", 0, _FEW
    while True:
        found = _MARKER.search(data, at)
        if found is None or found.end() + 2 > len(data):
            # Look at the last bytes again, with those that follow.
            at = max(at, len(data) - 1) if found is None else found.start()
            chunk = file.read(size)
            if not chunk:
                break
            data, at = data[at:] + chunk, 0
            continue
        marker, at = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            break
        segments += 1
        if segments > _MAX_SEGMENTS:
            raise ValueError(f"more than {_MAX_SEGMENTS} tables and comments")
        length = int.from_bytes(data[at : at + 2], "big")
        body = data[at + 2 : at + length]
        at += length
        if at > len(data):  # a long segment, such as metadata
            body += file.read(min(at - len(data), _CHUNK))
            data, at = b"", 0
        if marker in _FRAMES:
            progressive = marker in _PROGRESSIVE
            components = [(byte >> 4, byte & 15) for byte in body[7::3]]
        elif marker == _START_OF_SCAN:
            count, size = count + 1, _CHUNK
            if count == 1 and not progressive and body[:1] == bytes([len(components)]):
                return Scans(1, 0)
            if count > MAX_SCANS:
                raise ValueError(f"more than {MAX_SCANS} scans, which would take minutes to decode")
    return Scans(count, _coefficient_bytes(components) if count else 0)


def _coefficient_bytes(components: list[tuple[int, int]]) -> float:
    wide, high = (max((factors[axis] for factors in components), default=0) for axis in (0, 1))
    return _COEFFICIENT * sum(x * y for x, y in components) / max(wide * high, 1)
