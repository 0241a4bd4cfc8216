"""Limit what Pillow reads from an image file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

MOST_READS = 1_000_000
"""Calls of `read` for an image, about a second; files of a hundred megabytes need a tenth of them."""

_LONGEST_READ = 256 << 20  # bytes; Pillow reads WebP and AVIF files whole, before it knows the size of the image
_MAX_COMMENTS = 1000
_PADDING = b"\xff" * 1024


class BoundedReads:
    """A file that may be read `MOST_READS` times.

    Pillow reads headers in Python, some of them byte by byte, so that padding or empty blocks would take a minute and
    gigabytes.

    Attributes:
        left: number of reads that are left.
        is_jpeg: whether to refuse padding between the pixels of a JPEG, which libjpeg reads again with every block.
        is_plain_ppm: whether to refuse thousands of comments between the pixels, for each of which Pillow copies the
            rest.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.left = MOST_READS
        self.is_jpeg = self.is_plain_ppm = False

    def read(self, size: int = -1) -> bytes:
        """Read like a file.

        Raises:
            OSError: a limit is exceeded.
        """
        self.left -= 1
        if self.left < 0:
            raise OSError(f"more than {MOST_READS} blocks")
        data = self._file.read(min(size, _LONGEST_READ) if size >= 0 else _LONGEST_READ)
        if len(data) == _LONGEST_READ:
            raise OSError(f"a block of more than {_LONGEST_READ >> 20} MiB")
        if self.is_plain_ppm and data.count(b"#") > _MAX_COMMENTS:
            raise OSError(f"more than {_MAX_COMMENTS} comments between the pixels")
        if self.is_jpeg and data.startswith(_PADDING) and data.count(_PADDING[:1]) == len(data):
            raise OSError("padding instead of pixels")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def position_kept(file: BinaryIO) -> Iterator[None]:
    """Read elsewhere in a file, and return to the present position at the end."""
    place = file.tell()
    try:
        yield
    finally:
        file.seek(place)
