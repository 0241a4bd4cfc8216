"""Index the images inside WebDataset tar shards, for random access.

WebDataset's own loader streams each shard and shuffles in a buffer, in an order that depends on the number of workers.
Our draws depend on (seed, epoch, image index) and a run can resume at any step, which requires random access. With an
uncompressed tar file, one pass over the headers gives the offset of each member, which can then be read like a file.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import UserError, one_line
from ..images import is_hidden, is_image_name
from ..images.formats import suffix_of
from ..packed_strings import PackedStrings
from ..regular_files import open_regular

TAR_SUFFIX = ".tar"
_MOST_EXTENSION = 1 << 20  # bytes; Linux paths have at most 4096
_MOST_PADDING = 4 << 20  # bytes of zeros at the end of an archive; GNU tar fills a record, by default of 10 KiB
_EXTENSION_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass(frozen=True)
class TarIndex:
    """The images in a set of tar files, sorted by key.

    Attributes:
        keys: `SHARD.tar/MEMBER` as a POSIX path relative to the shards' common folder.
        shards: tar files, relative to that folder.
        shard: (N,) int32, index into `shards`.
        offset: (N,) int64, offset of the member's content within its shard.
        size: (N,) int64, in bytes.
        passed_over: number of non-image members by suffix, excluding hidden ones.
    """

    keys: PackedStrings
    shards: list[str]
    shard: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    passed_over: dict[str, int]

    @classmethod
    def read(cls, root: Path, shards: Sequence[str]) -> TarIndex:
        """Read the headers of all shards.

        Hidden members (with a leading dot) and those without an image suffix are skipped. If several members have the
        same name, the last one wins, as when unpacking a tar file. Links to other members are images too.

        Raises:
            UserError: a shard is compressed, truncated or damaged.
        """
        places: dict[str, tuple[int, int, int]] = {}
        passed_over: Counter[str] = Counter()
        for number, shard in enumerate(shards):
            for member, offset, size in _members(root / shard, passed_over):
                places[f"{shard}/{member}"] = number, offset, size
        keys = sorted(places)
        table = np.array([places[key] for key in keys], dtype=np.int64).reshape(-1, 3)
        columns = np.ascontiguousarray(table.T)
        return cls(
            PackedStrings(keys), list(shards), columns[0].astype(np.int32), columns[1], columns[2], dict(passed_over)
        )


class _Member(tarfile.TarInfo):
    """A validated header; `tarfile` treats damaged ones as the end of the archive, and reads extensions of any size."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Member:
        """Read the next header.

        Raises:
            tarfile.ReadError: the header is invalid, or has a field that no tar writer produces.
        """
        try:
            return super().fromtarfile(archive)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            raise  # the end of the archive
        except (tarfile.HeaderError, ValueError, OverflowError, TypeError) as error:
            raise tarfile.ReadError(f"header at byte {archive.offset:,}: {error}") from None

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _EXTENSION_TYPES and not 0 <= self.size <= _MOST_EXTENSION:
            raise tarfile.ReadError(f"size of the extension header at byte {self.offset:,} is {self.size:,}")
        return super()._proc_member(archive)  # type: ignore[misc]


def _members(path: Path, passed_over: Counter[str]) -> list[tuple[str, int, int]]:
    """Return (name, offset, size) of the images in one tar file, counting other members by suffix.

    Several tar files that were concatenated are read as one.
    """
    found: list[tuple[str, int, int]] = []
    try:
        with open_regular(path) as file:
            start: int | None = 0
            while start is not None:
                file.seek(start)
                with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as archive:
                    found += _images(archive, os.fstat(file.fileno()).st_size, passed_over)
                    start = _next_archive(file, archive.offset)
    except tarfile.TarError as error:
        raise UserError(
            f"{path} is not a complete, uncompressed tar file ({one_line(error)}); decompress it, or replace or "
            "remove it if it is damaged"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}); check the path and its permissions") from None
    return found


def _images(archive: tarfile.TarFile, end: int, passed_over: Counter[str]) -> list[tuple[str, int, int]]:
    """Return the images of an archive that ends at byte `end` or before."""
    found: list[tuple[str, int, int]] = []
    places: dict[str, tuple[int, int]] = {}  # of regular files, for the links to them
    for member in archive:
        name = member.name.lstrip("/")
        path = PurePosixPath(name)
        link = member.linkname if member.islnk() else _target(name, member.linkname) if member.issym() else None
        if not member.issparse() and not 0 <= member.size <= end - member.offset_data:
            raise tarfile.ReadError(f"it ends inside {name}, or the member's size, {member.size:,}, is wrong")
        if not (member.isreg() or link is not None) or any(is_hidden(part) for part in path.parts):
            continue
        place = (member.offset_data, member.size) if link is None else places.get(str(PurePosixPath(link.lstrip("/"))))
        if place is None or member.issparse() or not is_image_name(name):
            passed_over[suffix_of(name)] += 1
            continue
        places[str(path)] = place
        found.append((str(path), *place))
    return found


def _target(name: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


def _next_archive(file: BinaryIO, end: int) -> int | None:
    """Return where another archive starts, after the zeros at the end of the one before; None if there is none."""
    for start in range(end, end + _MOST_PADDING, tarfile.BLOCKSIZE):
        file.seek(start)
        block = file.read(tarfile.BLOCKSIZE)
        if block and not block.strip(b"\0"):
            continue
        try:
            tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
        except (tarfile.HeaderError, ValueError):
            return None  # what follows the end of an archive has no meaning
        return start
    return None
