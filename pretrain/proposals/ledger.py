"""Track which images already have proposals, and in which file, so that later runs can skip them."""

from __future__ import annotations

import functools
import heapq
import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ccop_hub.errors import UserError
from ccop_hub.files import replacing
from ccop_hub.image_sources.stored_images import ImageSource, StoredImage
from ccop_hub.images import UnreadableImageError
from ccop_hub.markup import visible
from ccop_hub.proposals.shards import (
    ImageProposals,
    ShardNotes,
    ShardRows,
    content_digest,
    notes_of,
    read_columns,
    read_notes,
    shard_paths,
    write_shard,
)

from ..common.parallel import OrderedMap

PARTS = "parts"
PART_IMAGES = 256  # maximum rows per part
PART_SECONDS = 20.0  # maximum time between parts, and so the most work that a killed run can lose
_FACTS = ("image", "width", "height", "bytes", "content")
_Row = tuple[str, int, int, int, int, int, int]  # _FACTS, index of the file, row in it


@dataclass(frozen=True)
class Share:
    """Share `number` (from 1) of `of` equal shares of an image set; images are assigned by key alone."""

    number: int
    of: int

    def __contains__(self, image: str) -> bool:
        return self.of == 1 or zlib.crc32(image.encode("utf-8", "surrogateescape")) % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"

    @classmethod
    def parse(cls, text: str) -> Share:
        """Parse `I/N`.

        Raises:
            UserError: the text is not two integers with 1 <= I <= N.
        """
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise UserError(
                f"--shard is {text}; give I/N with I from 1 to N, such as 1/8 on the first of eight machines"
            )
        return cls(int(number), int(of))


WHOLE = Share(1, 1)


class Ledger:
    """Maps each image of a listing to its row of proposals.

    A row is valid if the image's size in bytes is unchanged and the image file is not newer than the row's file. If it
    is newer, the contents are compared by digest (rows imported from a COCO JSON have no digest and stay valid).

    Args:
        source: the images.
        folder: folder of proposals.
        settings: settings digest; files with a different digest are ignored.
        max_pixels: rows of larger images are ignored.
        workers: number of processes for comparing contents.
        share: share of the listing to process; images outside it are never pending.

    Attributes:
        files: shards and parts with valid rows.
        file: (N,) int32, index into `files` for each image; -1 if it has no row.
        row: (N,) int32, row within that file.
        share: share of the listing to process.
        kept: number of valid rows.
        compared_ns: time of the listing, in ns.
    """

    def __init__(
        self, source: ImageSource, folder: Path, settings: str, max_pixels: int, workers: int = 1, share: Share = WHOLE
    ) -> None:
        self.compared_ns = time.time_ns()
        self.source = source
        self.folder = folder
        self.settings = settings
        self.files: list[Path] = []
        self.file = np.full(len(source), -1, dtype=np.int32)
        self.row = np.zeros(len(source), dtype=np.int32)
        self.share = share
        streams = [self._rows_of(shard_paths(folder))]
        streams += [self._rows_of(sorted(run.glob("*.parquet"))) for run in sorted((folder / PARTS).glob("*"))]
        # Reading the listing in order needs one open file per stream, plus one for the new parts.
        self._rows_of_file = functools.lru_cache(maxsize=2 * len(streams) + 2)(ShardRows)
        self._verify(self._match(heapq.merge(*streams), max_pixels), workers)
        self.kept = int((self.file >= 0).sum())

    def pending(self) -> Iterator[int]:
        """Yield the indices of the share's images without a row."""
        return (index for index in self.shared() if self.file[index] < 0)

    def shared(self) -> Iterator[int]:
        """Yield the indices of the share's images."""
        return (index for index, image in enumerate(self.source.keys) if image in self.share)

    def add(self, path: Path, indices: Sequence[int]) -> None:
        """Register a new file with the rows of these images, in order."""
        self.files.append(path)
        self.file[indices] = len(self.files) - 1
        self.row[indices] = np.arange(len(indices))

    def rows(self, indices: Iterable[int]) -> Iterator[ImageProposals]:
        """Yield the rows of images that have one; each file is read once if the indices are ascending."""
        rows_of = self._rows_of_file
        return (rows_of(self.files[self.file[index]])[int(self.row[index])] for index in indices)

    def parts(self) -> list[Path]:
        """Return the files that are not shards."""
        return [path for path in self.files if path.parent != self.folder]

    def _rows_of(self, paths: Iterable[Path]) -> Iterator[_Row]:
        """Yield the rows of consecutive files, sorted, skipping damaged files and files with other settings."""
        for path in paths:
            notes = read_notes(path)
            if notes is None or notes.settings != self.settings:
                continue
            try:
                table = read_columns(path, _FACTS)
            except UserError:
                continue
            if table is None:
                continue
            self.files.append(path)
            columns = [table[name].to_pylist() for name in _FACTS]
            yield from zip(*columns, [len(self.files) - 1] * notes.rows, range(notes.rows), strict=True)

    def _match(self, rows: Iterator[_Row], max_pixels: int) -> Iterator[tuple[int, int]]:
        """Merge the listing with the rows; yield (index, content digest) of rows to verify."""
        stamps: dict[int, int] = {}
        row = next(rows, None)
        for index, stored in enumerate(self.source):
            while row is not None and row[0] < stored.key:
                row = next(rows, None)
            state: tuple[int, int] | None = None
            while row is not None and row[0] == stored.key:
                _, width, height, size, content, file, place = row
                if file not in stamps:
                    stamps[file] = self.files[file].stat().st_mtime_ns
                if self.file[index] < 0 and width * height <= max_pixels and stored.key in self.share:
                    state = state or stored.state()
                    if size == state[0]:
                        self.file[index], self.row[index] = file, place
                        if content and state[1] > stamps[file]:
                            yield index, content
                row = next(rows, None)

    def _verify(self, doubtful: Iterator[tuple[int, int]], workers: int) -> None:
        """Read the images that are newer than their row, and drop the rows of those that have changed."""
        doubts = list(doubtful)
        images = (self.source[index] for index, _ in doubts)
        few = 1 if len(doubts) < PART_IMAGES else workers
        with OrderedMap(stored_content, images, few) as contents:
            for (index, content), found in zip(doubts, contents, strict=True):
                if found != content:
                    self.file[index] = -1


def stored_content(stored: StoredImage) -> int | None:
    """Return the digest of an image's bytes, or None if it cannot be read."""
    try:
        return content_digest(stored.read_bytes())
    except UnreadableImageError:
        return None


class PartWriter:
    """Writes rows to parts as they arrive, in a separate folder so that several machines can share one `parts`.

    Args:
        ledger: ledger in which to register each part.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._folder = _new_folder(ledger.folder / PARTS, str(ledger.share))
        self._rows: list[ImageProposals] = []
        self._indices: list[int] = []
        self._written = 0
        self._last = time.monotonic()

    def add(self, index: int, row: ImageProposals) -> None:
        """Add a row. Rows must be sorted by image."""
        self._rows.append(row)
        self._indices.append(index)
        if len(self._rows) >= PART_IMAGES or time.monotonic() - self._last > PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the rows added since the last part."""
        self._last = time.monotonic()
        if not self._rows:
            return
        # A merging run may have removed the folder in the meantime.
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._written:06d}.parquet"
        notes: ShardNotes = notes_of(self._rows, {}, self._ledger.settings)
        write_shard(path, self._rows, notes, self._ledger.compared_ns)
        self._ledger.add(path, self._indices)
        self._written += 1
        self._rows, self._indices = [], []


def _new_folder(parts: Path, name: str) -> Path:
    """Create a folder that no other process uses; numbered, since a share may be searched in several runs."""
    try:
        parts.mkdir(parents=True, exist_ok=True)
        for number in range(10**6):
            folder = parts / f"{name}-{number:04d}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise UserError(f"cannot write into {parts} ({error.strerror}); fix its permissions") from None
    raise UserError(f"{parts} is full of interrupted runs; remove it")


def remove_parts(folder: Path, files: Sequence[Path] | None = None) -> None:
    """Delete parts that a folder of proposals no longer needs: the given files, or all of them."""
    parts = folder / PARTS
    if files is None:
        shutil.rmtree(parts, ignore_errors=True)
        return
    for path in files:
        path.unlink(missing_ok=True)
    for path in [*parts.glob("*"), parts]:
        try:
            path.rmdir()
        except OSError:
            continue  # another machine has written to it in the meantime


def take_parts(folder: Path, others: Sequence[Path], settings: str) -> None:
    """Copy the rows of other folders into this folder's parts.

    Args:
        folder: folder of proposals.
        others: folders of proposals with the same settings, complete or not.
        settings: settings digest.

    Raises:
        UserError: a folder contains no proposals with these settings, or none that can be read.
    """
    for other in others:
        files = [*shard_paths(other), *sorted((other / PARTS).glob("*/*.parquet"))]
        if not files:
            raise UserError(f"{other} contains no proposals to merge; give the --out of another machine")
        readable = {path: notes for path in files if (notes := read_notes(path)) is not None}
        damaged = [path for path in files if path not in readable]
        if not readable:
            raise UserError(
                f"none of the {len(files)} files of proposals in {other} can be read, such as {files[0]}: copy them "
                "again"
            )
        if damaged:
            print(
                f"warning: {len(damaged)} of {len(files)} files of proposals in {other} cannot be read, such as "
                f"{visible(damaged[0])}: their images are searched again",
                file=sys.stderr,
                flush=True,
            )
        for path, notes in readable.items():
            if notes.settings != settings:
                raise UserError(f"{other} contains proposals with other settings; merge only parts of one run")
            # Keep the order of files within a folder, since together they form one sorted stream of rows.
            name = f"merged-{content_digest(os.fsencode(path.parent.resolve())):016x}"
            target = folder / PARTS / name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as temporary:
                shutil.copy2(path, temporary)
