"""Images stored in files or tar shards, with random access."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import UserError
from ..images import (
    MAX_PIXELS,
    Pixels,
    Reduction,
    UnreadableImageError,
    decode_pixels,
    decode_rgb,
    open_regular,
    read_rgb,
)
from ..packed_strings import PackedStrings
from .tar_index import TarIndex

_MOST_BYTES_A_PIXEL = 8  # four channels of 16 bits, uncompressed
_MOST_METADATA = 64 << 20  # bytes


@dataclass(frozen=True)
class StoredImage:
    """One encoded image, stored as a file or as part of one.

    Attributes:
        key: key of the image, unique within its listing.
        path: file that contains the image.
        offset: first byte within the file.
        length: number of bytes; None for the rest of the file.
    """

    key: str
    path: Path
    offset: int = 0
    length: int | None = None

    def state(self) -> tuple[int, int]:
        """Return the image's size in bytes and its file's modification time in ns; (-1, 0) if there is no file."""
        try:
            status = os.stat(self.path)  # noqa: PTH116 - a million times
        except OSError:
            return -1, 0
        return (status.st_size if self.length is None else self.length), status.st_mtime_ns

    def read_bytes(self, max_pixels: int = MAX_PIXELS) -> bytes:
        """Read the encoded image.

        Raises:
            UnreadableImageError: the file cannot be read, is truncated, or is too large for `max_pixels`.
        """
        with open_regular(self.path) as file:
            try:
                size = os.fstat(file.fileno()).st_size if self.length is None else self.length
                if size > max_pixels * _MOST_BYTES_A_PIXEL + _MOST_METADATA:
                    raise UnreadableImageError(self.path, f"{size:,} bytes, more than {max_pixels} pixels can need")
                file.seek(self.offset)
                data = file.read(size)
            except OSError as error:
                raise UnreadableImageError(self.path, error.strerror or str(error)) from None
        if self.length is not None and len(data) < self.length:
            raise UnreadableImageError(self.path, f"the shard ends inside {self.key}")
        return data

    def read(self, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """Decode the image as upright 8-bit RGB; see `decode_rgb`.

        Raises:
            UnreadableImageError: the image cannot be read, or has more than `max_pixels`.
        """
        if self.length is not None:
            return decode_rgb(BytesIO(self.read_bytes(max_pixels)), self.path / self.key, max_pixels)
        return read_rgb(self.path, max_pixels)

    def read_pixels(self, reduction: Reduction, max_pixels: int = MAX_PIXELS) -> tuple[Pixels, int]:
        """Decode the image into an array, possibly reduced; see `decode_pixels`.

        Raises:
            UnreadableImageError: as for `read`.
        """
        if self.length is not None:
            return decode_pixels(BytesIO(self.read_bytes(max_pixels)), self.path / self.key, max_pixels, reduction)
        with open_regular(self.path) as file:
            return decode_pixels(file, self.path, max_pixels, reduction)


class ImageSource:
    """A listing of images with random access.

    Attributes:
        root: folder that the keys (or the tar shards) are relative to.
        name: name of the data set, for display.
        keys: sorted, unique keys of the images.
        ids: (N,) int64 COCO image ids if the listing is a COCO JSON, else None.
        passed_over: number of non-image files found, by suffix.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        keys: PackedStrings,
        ids: npt.NDArray[np.int64] | None = None,
        tars: TarIndex | None = None,
        passed_over: Mapping[str, int] | None = None,
    ) -> None:
        self.root = root
        self.name = name
        self.keys = keys
        self.ids = ids
        self.passed_over = dict(passed_over or {})
        self._tars = tars

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the listed keys."""
        return listing_digest(self.keys)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> StoredImage:
        """Return the image at `index`."""
        key = self.keys[index]
        if self._tars is None:
            return StoredImage(key, self.root / key)
        shard = self.root / self._tars.shards[self._tars.shard[index]]
        return StoredImage(key, shard, int(self._tars.offset[index]), int(self._tars.size[index]))

    def __iter__(self) -> Iterator[StoredImage]:
        return (self[index] for index in range(len(self)))


def listing_digest(keys: Iterable[str]) -> str:
    """Compute the SHA-256 (hex) of a listing of keys, each terminated by a newline."""
    digest = hashlib.sha256()
    for key in keys:
        digest.update(key.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def require_different(path: Path, names: list[str]) -> None:
    """Check that sorted names are unique."""
    twice = next((name for name, following in itertools.pairwise(names) if name == following), None)
    if twice is not None:
        raise UserError(f"{path} lists {twice} twice; list each image once")
