"""The on-disk format of proposals: Parquet shards with a manifest, keyed by image.

    manifest.json             contents of the shards: settings, number of images, digest of the listing
    proposals-00000.parquet   one row per image: image, width, height, boxes, bytes, content; sorted by image
    skipped.csv               images left out, with the reason
    parts/                    rows that are not yet in a shard, while a run is in progress

Files are written atomically and record what their rows were computed from: each row has the image's size and digest,
and each file has the settings digest. A file's modification time is set to the time of the listing that its rows were
last checked against, so that changed images can be found without reading the unchanged ones.
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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import UserError, one_line
from ..files import replacing, write_atomically
from ..regular_files import MAX_JSON, open_regular, parse_json, read_json, read_regular

MANIFEST = "manifest.json"
SKIPPED = "skipped.csv"
IMAGES_PER_SHARD = 256
FORMAT_VERSION = 2

_NOTES_KEY = b"ccop"
_MOST = 1 << 62  # upper limit for any count
_MOST_ROWS = 1 << 12
_MOST_BOXES = 1 << 22  # in a shard: 64 MiB as float32
_LARGEST_SHARD = 1 << 27  # bytes, also when decompressed
_LONGEST_KEY = 1 << 14  # bytes of UTF-8
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, MemoryError, pa.ArrowException)
"""Exceptions that Arrow and the checks here raise for damaged files."""

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
    """Proposals of one image.

    Attributes:
        image: key of the image, its POSIX path relative to the image folder.
        width: width of the upright image, in pixels.
        height: height of the upright image, in pixels.
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
    """Metadata of a folder of proposals.

    Attributes:
        root: name of the data set, for information only.
        images: number of listed images, including those left out.
        listing: SHA-256 of the listed keys.
        settings: settings that the boxes depend on, by name.
        settings_digest: SHA-256 of `settings`; recorded in every shard.
        versions: versions of the libraries that computed the first shard.
        skipped: number of images left out.
        boxes: number of boxes.
        empty: number of images without a box.
        complete: whether all shards exist.
        format_version: version of this format.
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
        # A name that is not valid UTF-8 is written as an escape that JSON can read back.
        text = json.dumps(vars(self), indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
        write_atomically(folder / MANIFEST, text + b"\n")

    @property
    def shards(self) -> int:
        """Number of shards."""
        return math.ceil(self.images / IMAGES_PER_SHARD)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder.

        Raises:
            UserError: there is no manifest, or its format is not supported.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(f"{folder} contains no proposals (no {MANIFEST}); run ccop-pretrain proposals IMAGES")
        try:
            facts = read_json(path)
            version = facts["format_version"]
            if version != FORMAT_VERSION:
                raise UserError(
                    f"{path} has format {version}, this version reads {FORMAT_VERSION}; write them to a new folder "
                    "again"
                )
            return _checked(cls(**facts))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} is not a manifest of proposals ({one_line(error)}); make them again") from None


@dataclass(frozen=True)
class ShardNotes:
    """Description of a shard, stored in its Parquet metadata.

    Attributes:
        settings: settings digest.
        rows: number of rows.
        boxes: number of boxes.
        empty: number of images without a box.
        skipped: reason for each listed image that was left out, by key.
    """

    settings: str
    rows: int
    boxes: int
    empty: int
    skipped: dict[str, str]


_Facts = TypeVar("_Facts", Manifest, ShardNotes)


def _checked(facts: _Facts) -> _Facts:
    """Check the field types at run time and return the object.

    Raises:
        TypeError: a field has the wrong type or is a negative count; the message names it.
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
    """Compute the SHA-256 (hex) of settings by name."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def content_digest(data: bytes) -> int:
    """Compute the 64-bit BLAKE2b digest of an image's bytes."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of shard `number`, from 0."""
    return folder / f"proposals-{number:05d}.parquet"


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards in a folder, in numerical order."""
    numbered = ((path.stem.rpartition("-")[2], path) for path in folder.glob("proposals-*.parquet"))
    return [path for _, path in sorted((int(number), path) for number, path in numbered if number.isdigit())]


def shard_bounds(images: int) -> Iterator[tuple[int, range]]:
    """Yield the number and image indices of each shard, which depend only on the number of images."""
    for number, start in enumerate(range(0, images, IMAGES_PER_SHARD)):
        yield number, range(start, min(start + IMAGES_PER_SHARD, images))


def notes_of(rows: Sequence[ImageProposals], skipped: dict[str, str], settings: str) -> ShardNotes:
    """Build the notes of a shard with these rows."""
    counts = [len(row.boxes) for row in rows]
    return ShardNotes(settings, len(rows), sum(counts), counts.count(0), skipped)


def write_shard(path: Path, rows: Sequence[ImageProposals], notes: ShardNotes, compared_ns: int) -> None:
    """Write one shard atomically.

    Args:
        path: path of the shard.
        rows: rows sorted by image.
        notes: notes of these rows.
        compared_ns: time of the listing that the rows were checked against, in ns; becomes the file's modification
            time.
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
        # Arrow opens only paths that are valid UTF-8.
        with temporary.open("wb") as file:
            pq.write_table(pa.table(columns, schema=schema), file, compression="zstd")
        os.utime(temporary, ns=(compared_ns, compared_ns))


def read_notes(path: Path) -> ShardNotes | None:
    """Read the notes of a shard; None if there is no complete shard of this format at `path`."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > _LARGEST_SHARD:
                return None
            parquet = pq.read_metadata(file)
        numbers = _require_affordable(parquet)
        text = parquet.metadata[_NOTES_KEY]
        notes = _checked(ShardNotes(**parse_json(text))) if len(text) <= MAX_JSON else None
    except _UNREADABLE:
        return None
    # The counts determine how much memory is allocated, so check them against the file's metadata.
    agrees = notes is not None and parquet.num_rows == notes.rows
    # An empty list counts as one value.
    return notes if agrees and notes is not None and numbers == 4 * notes.boxes + notes.empty else None


def _require_affordable(parquet: pq.FileMetaData) -> int:
    """Check the sizes that a Parquet file states, and return its number of box coordinates and empty lists.

    Raises:
        ValueError: the file is larger than any shard. A small file can repeat a value without end.
    """
    groups = [parquet.row_group(number) for number in range(parquet.num_row_groups)]
    chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
    numbers: int = sum(chunk.num_values for chunk in chunks if chunk.path_in_schema.startswith("boxes."))
    size = sum(chunk.total_uncompressed_size for chunk in chunks)
    if parquet.num_rows > _MOST_ROWS or numbers > 4 * _MOST_BOXES + _MOST_ROWS or size > _LARGEST_SHARD:
        raise ValueError("larger than any shard")
    return numbers


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table | None:
    """Read some columns of a shard; None if it is missing or damaged.

    Raises:
        UserError: a column does not have the type of the format, or contains nulls.
    """
    try:
        content = pa.BufferReader(read_regular(path, _LARGEST_SHARD))
        # As a dictionary, a long text that is repeated in every row is in memory once.
        file = pq.ParquetFile(content, read_dictionary=["image"])
        _require_affordable(file.metadata)
        for name in columns:
            found, wanted = file.schema_arrow.field(name).type, _SCHEMA.field(name).type
            if found != (pa.dictionary(pa.int32(), wanted) if name == "image" else wanted):
                raise _damaged(path, name, f"is {found}, not {wanted}")
        # Shards are small, and each thread of Arrow's pool would hold on to memory.
        table = file.read(columns=list(columns), use_threads=False)
        for name in columns:
            if table[name].null_count or (name == "boxes" and _has_nulls(table[name])):
                raise _damaged(path, name, "contains nulls")
        if "image" in columns:
            table = table.set_column(columns.index("image"), "image", _keys(path, table["image"]))
        table.validate(full=True)
        return table
    except _UNREADABLE:
        return None


def _keys(path: Path, images: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert the keys of a shard from a dictionary to strings, once they are known to be short."""
    longest = (pc.max(pc.binary_length(chunk.dictionary)).as_py() for chunk in images.chunks)
    if max((length or 0 for length in longest), default=0) > _LONGEST_KEY:
        raise _damaged(path, "image", f"has a name of more than {_LONGEST_KEY} bytes")
    return images.cast(pa.string())


def _damaged(path: Path, field: str, what: str) -> UserError:
    return UserError(f"{path} is damaged: {field} {what}; delete it and rerun the command that makes the proposals")


def _has_nulls(boxes: pa.ChunkedArray) -> bool:
    return any(chunk.values.null_count or chunk.values.values.null_count for chunk in boxes.chunks)


class ShardRows(Sequence[ImageProposals]):
    """The rows of one shard, as a sequence.

    Raises:
        UserError: the shard is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        table = read_columns(path, [field.name for field in _SCHEMA])
        if table is None:
            raise UserError(f"{path} is missing or damaged; rerun the command that makes the proposals")
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
