"""The boxes to embed, by image: from a COCO JSON or a folder of proposals."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import UserError
from ..image_sources.stored_images import ImageSource
from ..optional import needs
from .views import Boxes

SMALLEST_SIDE = 1.0
"""Pixels; a box whose part inside the image is narrower or lower is left out."""


class BoxedImages(Protocol):
    """Boxes by image index."""

    def __call__(self, index: int, size: tuple[int, int]) -> Boxes:
        """Return the boxes of an upright image of this width and height: (n, 4) float32 xyxy in its pixels.

        Raises:
            UserError: the image has no entry, or one of another size.
        """


def open_boxes(path: Path, source: ImageSource) -> BoxedImages:
    """Open the boxes of a source's images.

    Args:
        path: COCO JSON, or folder written by `ccop-pretrain proposals`.
        source: the images.

    Raises:
        UserError: there are no boxes at `path`, or they belong to other images.
    """
    with needs("embed"):
        if path.is_dir():
            return _Proposals(path, source)
        if path.is_file():
            return _CocoBoxes(path, source)
    raise UserError(f"{path} does not exist; give a COCO JSON, or a folder written by `ccop-pretrain proposals`")


class _Proposals:
    def __init__(self, folder: Path, source: ImageSource) -> None:
        from ..proposals.store import ProposalStore

        self._source, self._store = source, ProposalStore.open(folder)
        self._store.require(source.keys)

    def __call__(self, index: int, size: tuple[int, int]) -> Boxes:
        key = self._source.keys[index]
        if key in self._store.skipped:
            raise UserError(f"has no proposals ({self._store.skipped[key]})")
        if self._store.size(key) != size:
            raise UserError(f"has {size[0]} x {size[1]} pixels, but its proposals were made from another size")
        return _clipped(self._store.boxes(key), size)


class _CocoBoxes:
    """Boxes of a COCO JSON, in file order; crowds have none."""

    def __init__(self, path: Path, source: ImageSource) -> None:
        from ..coco.findings import Findings
        from ..coco.reading import read_boxes
        from ..image_sources.coco_boxes import match_listing

        self._path, self._source = path, source
        self._sizes, numbers = match_listing(source, path)
        owners: list[int] = []
        corners: list[tuple[float, float, float, float]] = []
        for entry in read_boxes(path, Findings()):
            index = numbers.get(entry.image_id)
            if index is not None:
                x, y, width, height = entry.box
                owners.append(index)
                corners.append((x, y, x + width, y + height))
        order = np.argsort(np.array(owners, dtype=np.int64), kind="stable")
        self._boxes: Boxes = np.array(corners, dtype=np.float32).reshape(-1, 4)[order]
        self._starts = np.searchsorted(np.array(owners, dtype=np.int64)[order], np.arange(len(source) + 1))

    def __call__(self, index: int, size: tuple[int, int]) -> Boxes:
        from ..coco.findings import Findings
        from ..image_sources.coco_boxes import SizeError, true_size

        width, height = self._sizes[index].tolist()
        if width < 0:
            raise UserError(f"{self._path.name} does not list it")
        try:
            _, turn = true_size(self._source[index], (width, height) if width > 0 else None, Findings())
        except SizeError as error:
            raise UserError(f"{self._path.name} {error}") from None
        return _clipped(turn(self._boxes[self._starts[index] : self._starts[index + 1]].copy()), size)


def _clipped(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    edges = np.tile(np.asarray(size, dtype=np.float32), 2)
    inside: Boxes = np.clip(boxes, 0, edges)
    kept: Boxes = inside[((inside[:, 2:] - inside[:, :2]) >= SMALLEST_SIDE).all(axis=1)]
    return kept
