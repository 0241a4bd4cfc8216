"""Proposals on disk: Parquet shards with a manifest, keyed by image.

    manifest.json             contents of the shards: settings, number of images, digest of the listing
    proposals-00000.parquet   one row per image: image, width, height, boxes, bytes, content; sorted by image
    skipped.csv               images left out, with the reason
    parts/                    while proposals are being made: rows that are in no shard yet

A file appears under its name only when it is complete, and records what each row was made from: the image's size and
digest in the row, the digest of the settings in the file. The modification time of a file is that of the listing its
rows were last compared with, so that changed images are found without reading the others.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ccop_hub.errors import UserError, one_line
from ccop_hub.files import replacing, write_atomically
from ccop_hub.regular_files import read_regular

MANIFEST = "manifest.json"
SKIPPED = "skipped.csv"
IMAGES_PER_SHARD = 256
FORMAT_VERSION = 2

_NOTES_KEY = b"ccop"
_MOST = 1 << 62  # of anything counted
_MOST_IN_SHARD = 1 << 24  # boxes: 256 MiB
_MOST_JSON = 16 << 20  # bytes
_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4)), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("content", pa.uint64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class ImageProposals:
    """What was found in one image.

    Attributes:
        image: key of the image (its path relative to the image folder), POSIX.
        width: of the upright image, in pixels.
        height: of the upright image, in pixels.
        boxes: float32 (N, 4), xyxy in absolute pixels of the upright image.
        bytes: size of the encoded image.
        content: digest of the encoded image (see `content_digest`); 0 if the image was not read.
    """

    image: str
    width: int
    height: int
    boxes: npt.NDArray[np.float32]
    bytes: int
    content: int


@dataclass(frozen=True)
class Manifest:
    """Description of a folder of proposals.

    Attributes:
        root: name of the data set, for people; its path may change.
        images: number of images listed, those left out included.
        listing: SHA-256 of the listed keys.
        settings: what the boxes depend on, by name.
        settings_digest: SHA-256 of `settings`; recorded in every shard.
        versions: of the libraries that made the first shard.
        skipped: number of images left out.
        boxes: number of boxes.
        empty: number of images without a box.
        complete: whether all shards exist.
        format_version: of this layout.
    """

    root: str
    images: int
    listing: str
    settings: dict[str, Any]
    settings_digest: str
    versions: dict[str, str]
    skipped: int = 0
    boxes: int = 0
    empty: int = 0
    complete: bool = False
    format_version: int = FORMAT_VERSION

    def write(self, folder: Path) -> None:
        """Write `manifest.json` atomically."""
        # A name that is not UTF-8 becomes an escape that JSON reads back.
        text = json.dumps(vars(self), indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
        write_atomically(folder / MANIFEST, text + b"\n")

    @property
    def shards(self) -> int:
        """Number of shards."""
        return math.ceil(self.images / IMAGES_PER_SHARD)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a folder's manifest.

        Raises:
            UserError: no manifest, or not one of this format.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(f"{folder} contains no proposals (no {MANIFEST}); run ccop-pretrain proposals IMAGES")
        try:
            facts = json.loads(read_regular(path, _MOST_JSON))
            version = facts["format_version"]
            if version != FORMAT_VERSION:
                raise UserError(
                    f"{path} has format {version}, this version reads {FORMAT_VERSION}; write them to a new folder "
                    "again"
                )
            return _checked(cls(**facts))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{path} is not a manifest of proposals ({one_line(error)}); make them again") from None


@dataclass(frozen=True)
class ShardNotes:
    """Description of a shard, kept in its Parquet metadata.

    Attributes:
        settings: digest of the settings.
        rows: number of rows.
        boxes: number of boxes.
        empty: number of images without a box.
        skipped: reason by image for those of the shard's listing that were left out.
    """

    settings: str
    rows: int
    boxes: int
    empty: int
    skipped: dict[str, str]


_Facts = TypeVar("_Facts", Manifest, ShardNotes)


def _checked(facts: _Facts) -> _Facts:
    """The same facts, whose types Python does not check.

    Raises:
        TypeError: one has another type than declared, or is a negative count; names it.
    """
    for name, kind in get_type_hints(type(facts)).items():
        value, base = getattr(facts, name), get_origin(kind) or kind
        if not isinstance(value, base) or (base is int and (isinstance(value, bool) or not 0 <= value < _MOST)):
            what = "a whole number from 0" if base is int else base.__name__
            raise TypeError(f"{name} is {value!r}, not {what}")
        if kind == dict[str, str] and not all(isinstance(text, str) for item in value.items() for text in item):
            raise TypeError(f"{name} contains something other than text")
    return facts


def settings_digest(settings: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of settings by name."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def content_digest(data: bytes) -> int:
    """64-bit BLAKE2b digest of an image's bytes."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def shard_path(folder: Path, number: int) -> Path:
    """Path of the shard with this number, from 0."""
    return folder / f"proposals-{number:05d}.parquet"


def shard_paths(folder: Path) -> list[Path]:
    """The shards in a folder, in the order of their numbers."""
    numbered = ((path.stem.rpartition("-")[2], path) for path in folder.glob("proposals-*.parquet"))
    return [path for _, path in sorted((int(number), path) for number, path in numbered if number.isdigit())]


def shard_bounds(images: int) -> Iterator[tuple[int, range]]:
    """Number and image indices of each shard; they depend only on the number of images."""
    for number, start in enumerate(range(0, images, IMAGES_PER_SHARD)):
        yield number, range(start, min(start + IMAGES_PER_SHARD, images))


def notes_of(rows: Sequence[ImageProposals], skipped: dict[str, str], settings: str) -> ShardNotes:
    """The notes of a shard of these rows."""
    counts = [len(row.boxes) for row in rows]
    return ShardNotes(settings, len(rows), sum(counts), counts.count(0), skipped)


def write_shard(path: Path, rows: Sequence[ImageProposals], notes: ShardNotes, compared_ns: int) -> None:
    """Write one shard atomically.

    Args:
        path: of the shard.
        rows: sorted by image.
        notes: of these rows.
        compared_ns: modification time to give the file, in ns: when the listing was made that the rows were compared
            with.
    """
    values = np.concatenate([np.zeros((0, 4), np.float32), *(row.boxes for row in rows)]).astype(np.float32)
    offsets = np.cumsum([0, *(len(row.boxes) for row in rows)], dtype=np.int32)
    columns = [
        pa.array([row.image for row in rows], pa.string()),
        pa.array([row.width for row in rows], pa.int32()),
        pa.array([row.height for row in rows], pa.int32()),
        pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 4)),
        pa.array([row.bytes for row in rows], pa.int64()),
        pa.array([row.content for row in rows], pa.uint64()),
    ]
    schema = _SCHEMA.with_metadata({_NOTES_KEY: json.dumps(asdict(notes), sort_keys=True).encode()})
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns, schema=schema), temporary, compression="zstd")
        os.utime(temporary, ns=(compared_ns, compared_ns))


def read_notes(path: Path) -> ShardNotes | None:
    """The notes of a shard; None if there is no complete shard of this format at `path`."""
    try:
        parquet = pq.read_metadata(path)
        notes = _checked(ShardNotes(**json.loads(parquet.metadata[_NOTES_KEY])))
    except (OSError, KeyError, ValueError, TypeError, RecursionError):
        return None
    # The counts decide how much memory is allocated, so they must agree with the file's own metadata.
    numbers = sum(
        group.column(place).num_values
        for group in (parquet.row_group(number) for number in range(parquet.num_row_groups))
        for place in range(group.num_columns)
        if group.column(place).path_in_schema.startswith("boxes.")
    )
    agrees = parquet.num_rows == notes.rows and numbers == 4 * notes.boxes + notes.empty  # an empty list is one value
    return notes if agrees and max(notes.rows, notes.boxes) <= _MOST_IN_SHARD else None


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table | None:
    """Some columns of a shard; None if it is damaged."""
    try:
        # One thread: a shard is small, and each thread of Arrow's pool would keep memory.
        return pq.read_table(path, columns=list(columns), use_threads=False)
    except (OSError, ValueError, KeyError):
        return None


def _damaged(path: Path, field: str, what: str) -> UserError:
    return UserError(f"{path} is damaged: {field} {what}; delete it and rerun the command that makes the proposals")


def wrong_column(table: pa.Table) -> str | None:
    """Name of a column that has another type than a shard's, or contains a null; None if there is none."""
    for field in table.schema:
        if field.type != _SCHEMA.field(field.name).type or table[field.name].null_count:
            return str(field.name)
    return None


class ShardRows(Sequence[ImageProposals]):
    """The rows of one shard.

    Raises:
        UserError: the shard is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        table = read_columns(path, [field.name for field in _SCHEMA])
        if table is None:
            raise UserError(f"{path} is missing or damaged; rerun the command that makes the proposals")
        wrong = wrong_column(table)
        if wrong is not None:
            raise _damaged(path, wrong, f"is not {_SCHEMA.field(wrong).type} throughout")
        self.images: list[str] = table["image"].to_pylist()
        self.sizes: npt.NDArray[np.int32] = np.stack((table["width"].to_numpy(), table["height"].to_numpy()), axis=1)
        lists = table["boxes"].combine_chunks()
        lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
        self.ends: npt.NDArray[np.int64] = np.cumsum(
            lists.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64
        )
        self.boxes: npt.NDArray[np.float32] = lists.flatten().flatten().to_numpy().reshape(-1, 4)
        if (self.sizes < 1).any():
            raise _damaged(path, "width, height", "has a side below 1 pixel")
        if not (np.isfinite(self.boxes).all() and (self.boxes[:, 2:] >= self.boxes[:, :2]).all()):
            raise _damaged(path, "boxes", "has corners that are not finite or not in order")
        self._bytes = table["bytes"].to_pylist()
        self._content = table["content"].to_pylist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: Any) -> Any:
        start = self.ends[row - 1] if row else 0
        width, height = self.sizes[row].tolist()
        boxes = self.boxes[start : self.ends[row]]
        return ImageProposals(self.images[row], width, height, boxes, self._bytes[row], self._content[row])
