"""Proposals on disk: Parquet shards with a manifest, keyed by image path.

    manifest.json             what the shards hold: settings, number of images, digest of the listing
    proposals-00000.parquet   columns image, width, height, boxes; rows sorted by image
    skipped.csv               images left out, with the reason

A shard appears under its name only when it is whole, and carries the digest of what it was made from, so that a second
run can tell the shards it need not make again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ccop_hub.errors import UserError

MANIFEST = "manifest.json"
SKIPPED = "skipped.csv"
IMAGES_PER_SHARD = 256  # what a killed run may lose: two minutes of fast search on four cores
FORMAT_VERSION = 1

_SHARD_PATTERN = "proposals-*.parquet"
_PARTIAL_SUFFIX = ".partial"
_NOTES_KEY = b"ccop"
_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4)), nullable=False),
    ]
)


@dataclass(frozen=True)
class ImageProposals:
    """What was found in one image.

    Attributes:
        image: path relative to the image folder, POSIX.
        width: of the upright image, in pixels.
        height: of the upright image, in pixels.
        boxes: float32 (N, 4), xyxy in absolute pixels of the upright image.
    """

    image: str
    width: int
    height: int
    boxes: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Manifest:
    """What a folder of proposals is.

    Attributes:
        root: name of the image folder, for a person; its path may change.
        images: number of images listed, those left out included.
        skipped: number of images left out.
        boxes: number of boxes.
        empty: number of images without a box.
        listing: SHA-256 of the listed paths.
        settings: what the boxes depend on, by name.
        versions: of the libraries that made them.
        complete: whether every shard is there.
        format_version: of this layout.
    """

    root: str
    images: int
    listing: str
    settings: dict[str, Any]
    versions: dict[str, str]
    skipped: int = 0
    boxes: int = 0
    empty: int = 0
    complete: bool = False
    format_version: int = FORMAT_VERSION

    def write(self, folder: Path) -> None:
        """Write `manifest.json` in one step: a reader sees the old file or the new one."""
        text = json.dumps(vars(self), indent=2, ensure_ascii=False)
        with _atomic(folder / MANIFEST) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

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
            raise UserError(f"{folder} holds no proposals (no {MANIFEST}); make them: ccop-pretrain proposals IMAGES")
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            manifest = cls(**facts)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is not a manifest of proposals ({error}); make them again") from None
        if manifest.format_version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format {manifest.format_version}, this version reads {FORMAT_VERSION}; make them again"
            )
        return manifest


def listing_digest(images: Iterable[str]) -> str:
    """SHA-256 (hex) of a listing of relative paths, each ended by a newline."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(image.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def shard_path(folder: Path, number: int) -> Path:
    """Path of the shard with this number, from 0."""
    return folder / f"proposals-{number:05d}.parquet"


def shard_listings(images: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """The images of each shard, with its number: always the same cut, whoever makes the shards."""
    for number, start in enumerate(range(0, len(images), IMAGES_PER_SHARD)):
        yield number, images[start : start + IMAGES_PER_SHARD]


@dataclass(frozen=True)
class ShardNotes:
    """What a shard says of itself, in its Parquet metadata.

    Attributes:
        digest: of what the shard was made from.
        boxes: number of boxes.
        empty: number of images without a box.
        skipped: reason by image for those of the shard's listing that were left out.
    """

    digest: str
    boxes: int
    empty: int
    skipped: dict[str, str]


def write_shard(path: Path, rows: Sequence[ImageProposals], skipped: dict[str, str], digest: str) -> ShardNotes:
    """Write one shard in one step: a process killed at any moment leaves no half shard under `path`.

    Args:
        path: of the shard.
        rows: sorted by image.
        skipped: reason by image for those of the shard's listing that were left out.
        digest: of what the shard was made from.

    Returns:
        The notes, as `read_shard_notes` reads them.
    """
    values = np.concatenate([np.zeros((0, 4), np.float32), *(row.boxes for row in rows)]).astype(np.float32)
    offsets = np.cumsum([0, *(len(row.boxes) for row in rows)], dtype=np.int32)
    columns = [
        pa.array([row.image for row in rows], pa.string()),
        pa.array([row.width for row in rows], pa.int32()),
        pa.array([row.height for row in rows], pa.int32()),
        pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 4)),
    ]
    notes = ShardNotes(digest, len(values), sum(len(row.boxes) == 0 for row in rows), skipped)
    schema = _SCHEMA.with_metadata({_NOTES_KEY: json.dumps(asdict(notes), sort_keys=True).encode()})
    with _atomic(path) as partial:
        pq.write_table(pa.table(columns, schema=schema), partial, compression="zstd")
    return notes


def read_shard_notes(path: Path) -> ShardNotes | None:
    """The notes of a shard; None where no whole shard of this format is at `path`."""
    try:
        return ShardNotes(**json.loads(pq.read_schema(path).metadata[_NOTES_KEY]))
    except (OSError, KeyError, ValueError, TypeError):
        return None


def remove_shards(folder: Path, start: int = 0) -> None:
    """Delete the shards numbered `start` and above, and what interrupted runs left half-written."""
    for path in [*folder.glob(_SHARD_PATTERN), *folder.glob(f"*{_PARTIAL_SUFFIX}")]:
        number = path.stem.rpartition("-")[2]
        if path.name.endswith(_PARTIAL_SUFFIX) or not number.isdigit() or int(number) >= start:
            path.unlink()


class ProposalStore:
    """The proposals of an image folder, read whole: 16 bytes a box and the paths.

    The boxes are two plain arrays, so that the workers of a data loader share them.
    """

    def __init__(self, folder: Path, manifest: Manifest, table: pa.Table, skipped: dict[str, str]) -> None:
        """Take what `open` read."""
        self.folder = folder
        self.manifest = manifest
        self.skipped = skipped
        self._row = {image: row for row, image in enumerate(table["image"].to_pylist())}
        self._sizes = np.stack((table["width"].to_numpy(), table["height"].to_numpy()), axis=1)
        lists = table["boxes"].combine_chunks()
        self._ends = np.cumsum(pc.list_value_length(lists).to_numpy())
        self._boxes = lists.flatten().flatten().to_numpy().reshape(-1, 4)

    @classmethod
    def open(cls, folder: Path) -> ProposalStore:
        """Read a folder of proposals.

        Raises:
            UserError: no proposals there, unfinished ones, or a damaged shard.
        """
        manifest = Manifest.read(folder)
        if not manifest.complete:
            raise UserError(f"the proposals in {folder} are unfinished; run the command that makes them once more")
        tables, skipped = [], {}
        for number in range(manifest.shards):
            path = shard_path(folder, number)
            notes = read_shard_notes(path)
            if notes is None:
                raise UserError(f"{path} is missing or damaged; run the command that makes the proposals once more")
            tables.append(pq.read_table(path, schema=_SCHEMA))
            skipped.update(notes.skipped)
        return cls(folder, manifest, pa.concat_tables(tables), skipped)

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, image: str) -> bool:
        return image in self._row

    @property
    def images(self) -> list[str]:
        """Paths of the images that have an entry (which may hold no box), sorted."""
        return list(self._row)

    def boxes(self, image: str) -> npt.NDArray[np.float32]:
        """The boxes of an image: float32 (N, 4), xyxy in absolute pixels of the upright image; a copy.

        Raises:
            KeyError: the image has no entry; see `require`.
        """
        row = self._row[image]
        start = self._ends[row - 1] if row else 0
        boxes: npt.NDArray[np.float32] = self._boxes[start : self._ends[row]].copy()
        return boxes

    def size(self, image: str) -> tuple[int, int]:
        """Width and height in pixels of the upright image that was searched.

        Raises:
            KeyError: the image has no entry.
        """
        width, height = self._sizes[self._row[image]]
        return int(width), int(height)

    def require(self, images: Sequence[str]) -> None:
        """Check that every image has an entry here or was skipped for a reason.

        Raises:
            UserError: some have neither: these are proposals of another folder, or the folder has grown.
        """
        unknown = [image for image in images if image not in self._row and image not in self.skipped]
        if unknown:
            raise UserError(
                f"{len(unknown)} of {len(images)} images (first: {unknown[0]}) are not among the proposals in "
                f"{self.folder}, which were made of the folder {self.manifest.root!r} with {self.manifest.images} "
                "images; make proposals of this folder: ccop-pretrain proposals IMAGES --out NEW"
            )


@contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when all of it is written."""
    partial = path.with_name(path.name + _PARTIAL_SUFFIX)
    yield partial
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)
