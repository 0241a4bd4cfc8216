"""Where the images lie inside WebDataset tar shards, so that any of them can be read at any time.

WebDataset's own loader streams: a worker reads its shards from front to back and shuffles what passes through a buffer.
A run that draws from (seed, epoch, image index) and goes on at any step needs the image of any index at any moment, and
an order that does not depend on the number of workers. A tar file without compression has both: one pass over its
headers gives each member's offset, and a member is then read like a file.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from ccop_hub.errors import UserError
from ccop_hub.images import IMAGE_SUFFIXES

from ..common.packed_strings import PackedStrings

TAR_SUFFIX = ".tar"


@dataclass(frozen=True)
class TarIndex:
    """The images in a set of tar files, sorted by key.

    Attributes:
        keys: `SHARD.tar/MEMBER`, the shard relative to the shards' common folder, POSIX.
        shards: the files, relative to that folder.
        shard: (N,) int32, index into `shards`.
        offset: (N,) int64, first byte of the member's content in its shard.
        size: (N,) int64, bytes.
    """

    keys: PackedStrings
    shards: list[str]
    shard: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]

    @classmethod
    def read(cls, root: Path, shards: Sequence[str]) -> TarIndex:
        """Read the headers of all shards.

        Hidden members (a leading dot) and those without an image's suffix are left out; of members with the same name,
        the last counts, as when a tar file is unpacked.

        Raises:
            UserError: a shard that is not an uncompressed, whole tar file.
        """
        places: dict[str, tuple[int, int, int]] = {}
        for number, shard in enumerate(shards):
            for member, offset, size in _members(root / shard):
                places[f"{shard}/{member}"] = number, offset, size
        keys = sorted(places)
        table = np.array([places[key] for key in keys], dtype=np.int64).reshape(-1, 3)
        columns = np.ascontiguousarray(table.T)
        return cls(PackedStrings(keys), list(shards), columns[0].astype(np.int32), columns[1], columns[2])


def _members(path: Path) -> list[tuple[str, int, int]]:
    """(name, offset, size) of the images in one tar file."""
    found = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                hidden = any(part.startswith(".") and part != "." for part in name.parts)
                if member.isreg() and not member.issparse() and name.suffix.lower() in IMAGE_SUFFIXES and not hidden:
                    found.append((str(name), member.offset_data, member.size))
        end = path.stat().st_size
    except tarfile.TarError as error:
        raise UserError(
            f"{path} is not a whole, uncompressed tar file ({error}); shards are read at any place, which compression "
            "does not allow: unpack it, or replace a damaged one"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}); check the path and its permissions") from None
    if found and found[-1][1] + found[-1][2] > end:
        raise UserError(f"{path} ends within {found[-1][0]}; replace the damaged shard or leave it out")
    return found
