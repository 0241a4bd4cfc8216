"""Proposals in memory, looked up by image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..packed_strings import PackedStrings
from .shards import MANIFEST, Manifest, ShardRows, read_notes, shard_path


class ProposalStore:
    """The proposals of an image set, read into memory: 16 bytes per box, plus the keys.

    Opening a million images with 50 boxes each takes 1.2 GB. All data is in plain arrays, so that forked data loader
    workers share it.

    Attributes:
        folder: folder of proposals.
        manifest: manifest of the folder.
        images: sorted keys of the images that have an entry, possibly without boxes.
        skipped: reason for each image that was left out, by key.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Read the shards; see `open`."""
        self.folder = folder
        self.manifest = manifest
        self.skipped: dict[str, str] = {}
        rows = manifest.images - manifest.skipped
        self._require_fitting(rows)
        # Fill the arrays shard by shard, so that the boxes of a million images are never in memory twice.
        self._sizes = np.empty((rows, 2), dtype=np.int32)
        self._ends = np.empty(rows, dtype=np.int64)
        self._boxes = np.empty((manifest.boxes, 4), dtype=np.float32)
        images: list[str] = []
        boxes = 0
        for number in range(manifest.shards):
            shard = ShardRows(shard_path(folder, number))
            if len(images) + len(shard) > rows or boxes + len(shard.boxes) > manifest.boxes:
                raise self._unfit()
            place = slice(len(images), len(images) + len(shard))
            self._sizes[place] = shard.sizes
            self._ends[place] = shard.ends + boxes
            self._boxes[boxes : boxes + len(shard.boxes)] = shard.boxes
            images += shard.images
            boxes += len(shard.boxes)
        if len(images) != rows or boxes != manifest.boxes:
            raise self._unfit()
        if any(one >= following for one, following in itertools.pairwise(images)):
            raise UserError(
                f"the shards in {folder} are not sorted by image, or contain an image twice; make the proposals again, "
                "in a new folder"
            )
        self.images = PackedStrings(images)

    @classmethod
    def open(cls, folder: Path) -> ProposalStore:
        """Read a folder of proposals.

        Raises:
            UserError: there are no proposals, they are incomplete, or a shard is damaged.
        """
        manifest = Manifest.read(folder)
        if not manifest.complete:
            raise UserError(f"the proposals in {folder} are unfinished; rerun the command that makes them")
        return cls(folder, manifest)

    def __len__(self) -> int:
        return len(self.images)

    def __contains__(self, image: str) -> bool:
        return self.images.find(image) is not None

    def boxes(self, image: str) -> npt.NDArray[np.float32]:
        """Return a copy of an image's boxes: float32 (N, 4), xyxy in absolute pixels of the upright image.

        Raises:
            KeyError: the image has no entry; see `require`.
        """
        row = self._row(image)
        start = self._ends[row - 1] if row else 0
        boxes: npt.NDArray[np.float32] = self._boxes[start : self._ends[row]].copy()
        return boxes

    def size(self, image: str) -> tuple[int, int]:
        """Return the width and height of the upright image that was searched, in pixels.

        Raises:
            KeyError: the image has no entry.
        """
        width, height = self._sizes[self._row(image)].tolist()
        return width, height

    def require(self, images: Sequence[str]) -> None:
        """Check that every image has an entry or was skipped for a known reason.

        Raises:
            UserError: some images have neither, so the proposals belong to other images, or images were added.
        """
        known = set(self.images) | self.skipped.keys()
        unknown = [image for image in images if image not in known]
        if unknown:
            raise UserError(
                f"{len(unknown)} of {len(images)} images (first: {unknown[0]}) have no proposals in {self.folder}, "
                f"which were made from {self.manifest.root!r} with {self.manifest.images} images; run ccop-pretrain "
                "proposals IMAGES, with the same --out if images were added, otherwise with a new one"
            )

    def _require_fitting(self, rows: int) -> None:
        """Check the manifest's counts, which determine how much memory is allocated, against the shards."""
        found_rows = found_boxes = 0
        for number in range(self.manifest.shards):
            path = shard_path(self.folder, number)
            notes = read_notes(path)
            if notes is None:
                raise UserError(f"{path} is missing or damaged; rerun the command that makes the proposals")
            found_rows, found_boxes = found_rows + notes.rows, found_boxes + notes.boxes
            self.skipped.update(notes.skipped)
        if found_rows != rows or found_boxes != self.manifest.boxes:
            raise self._unfit()

    def _unfit(self) -> UserError:
        return UserError(
            f"the shards in {self.folder} do not match its {MANIFEST}; rerun the command that makes the proposals"
        )

    def _row(self, image: str) -> int:
        row = self.images.find(image)
        if row is None:
            raise KeyError(image)
        return row
