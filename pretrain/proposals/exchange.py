"""Proposals from a COCO JSON and into one; see `coco_json` for the authors' format."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ccop_hub.errors import UserError
from ccop_hub.files import replacing

from ..images.coco_json import CocoImage, read_boxes, read_images, write_proposals
from ..images.source import ImageSource
from .publication import Shard
from .shards import ImageProposals, Manifest, ShardRows, notes_of, shard_bounds, shard_path

_SHARDS_A_BUCKET = 64  # boxes are sorted by image in buckets of so many shards: 16 MB at 50 boxes an image
_BOXES_AT_ONCE = 1 << 18
_RECORD = np.dtype([("index", np.int32), ("box", np.float32, 4)])


def hand_over(folder: Path, source: ImageSource, path: Path) -> int:
    """Write the proposals of a folder as one COCO JSON. Image ids are the source's, or count from 1 by key.

    Images that were left out of the proposals are left out here.

    Returns:
        Number of boxes written.
    """
    manifest = Manifest.read(folder)

    def images() -> Iterator[CocoImage]:
        for number in range(manifest.shards):
            rows = ShardRows(shard_path(folder, number))
            for image, (width, height) in zip(rows.images, rows.sizes.tolist(), strict=True):
                yield CocoImage(_image_id(source, image), image, width, height)

    def boxes() -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        for number in range(manifest.shards):
            for row in ShardRows(shard_path(folder, number)):
                yield _image_id(source, row.image), row.boxes

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            return write_proposals(file, images(), boxes())
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error}); give another --to-coco") from None


def _image_id(source: ImageSource, image: str) -> int:
    index = source.keys.find(image)
    if index is None:
        raise UserError(f"{image} is not among the images any more; run the command that makes the proposals once more")
    return index + 1 if source.ids is None else int(source.ids[index])


def take_over(source: ImageSource, path: Path, folder: Path, settings: str, keep: int) -> Iterator[Shard]:
    """The shards of proposals that a COCO JSON holds, found by `file_name`, in the file's order, the first `keep`.

    Memory does not grow with the number of boxes: they are sorted by image in files under `folder`.

    Args:
        source: the images; those that the JSON does not list are left out, those it lists besides do not count.
        path: the JSON.
        folder: where the boxes are sorted.
        settings: digest that the shards carry.
        keep: most boxes taken of an image.

    Raises:
        UserError: not a COCO JSON, none of its images in the source, or a box outside of its image.
    """
    scratch = folder / "sorting"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        sizes, numbers = _read_listing(source, path)
        _sort_into_buckets(path, numbers, scratch)
        bucket = _Bucket(-1, {})
        for number, indices in shard_bounds(len(source)):
            if bucket.number != number // _SHARDS_A_BUCKET:
                bucket = _Bucket.read(scratch, number // _SHARDS_A_BUCKET)
            rows, skipped = [], {}
            for index in indices:
                key, (width, height) = source.keys[index], sizes[index].tolist()
                if width > 0:
                    boxes = _corners(path, key, bucket.boxes.get(index), (width, height))[:keep]
                    rows.append(ImageProposals(key, width, height, boxes, source[index].state()[0], 0))
                else:
                    skipped[key] = f"{path.name} does not list it" if width < 0 else f"{path.name} has no size of it"
            yield Shard(number, notes_of(rows, skipped, settings), rows)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _read_listing(
    source: ImageSource, path: Path
) -> tuple[npt.NDArray[np.int32], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """(N, 2) width and height by image index (-1: not listed, 0: no size); the COCO ids, sorted, with their indices."""
    sizes = np.full((len(source), 2), -1, dtype=np.int32)
    pairs = []
    for entry in read_images(path):
        index = source.keys.find(entry.file_name)
        if index is not None:
            sizes[index] = entry.width or 0, entry.height or 0
            pairs.append((entry.id, index))
    if not pairs:
        raise UserError(
            f"none of the images of {path} is among the {len(source)} of {source.name!r} (first: {source.keys[0]}); "
            "file_name must be the path relative to the images"
        )
    table = np.array(pairs, dtype=np.int64)
    table = table[np.argsort(table[:, 0])]
    if (np.diff(table[:, 0]) == 0).any():
        raise UserError(f"{path} gives two images one id; mend the JSON")
    return sizes, (table[:, 0], table[:, 1])


def _sort_into_buckets(path: Path, numbers: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], scratch: Path) -> None:
    """Append each box, with its image's index, to the file of its bucket."""
    known, indices = numbers
    ids: list[int] = []
    corners: list[tuple[float, float, float, float]] = []

    def flush() -> None:
        wanted = np.array(ids, dtype=np.int64)
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        listed = known[place] == wanted
        records = np.zeros(int(listed.sum()), dtype=_RECORD)
        records["index"] = indices[place[listed]]
        records["box"] = np.array(corners, dtype=np.float64).reshape(-1, 4)[listed]
        buckets = records["index"] // _images_a_bucket()
        for bucket in np.unique(buckets).tolist():
            with (scratch / f"{bucket}").open("ab") as file:
                file.write(records[buckets == bucket].tobytes())
        ids.clear()
        corners.clear()

    for entry in read_boxes(path):
        x, y, width, height = entry.box
        ids.append(entry.image_id)
        corners.append((x, y, x + width, y + height))
        if len(ids) >= _BOXES_AT_ONCE:
            flush()
    flush()


def _images_a_bucket() -> int:
    return _SHARDS_A_BUCKET * len(next(shard_bounds(1 << 30))[1])


class _Bucket:
    """The boxes of one bucket by image index, in the JSON's order."""

    def __init__(self, number: int, boxes: Mapping[int, npt.NDArray[np.float32]]) -> None:
        self.number = number
        self.boxes = boxes

    @classmethod
    def read(cls, scratch: Path, number: int) -> _Bucket:
        path = scratch / f"{number}"
        records = np.fromfile(path, dtype=_RECORD) if path.exists() else np.zeros(0, dtype=_RECORD)
        records = records[np.argsort(records["index"], kind="stable")]
        found, starts = np.unique(records["index"], return_index=True)
        groups = np.split(records["box"], starts[1:]) if len(found) else []
        return cls(number, dict(zip(found.tolist(), groups, strict=True)))


def _corners(
    path: Path, image: str, boxes: npt.NDArray[np.float32] | None, size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Check that the boxes lie in their image; a corner that is off by rounding, less than a pixel, is moved in."""
    if boxes is None:
        return np.zeros((0, 4), dtype=np.float32)
    edges = np.tile(np.asarray(size, dtype=np.float32), 2)
    outside = ((boxes < -1) | (boxes > edges + 1)).any(axis=1)
    if outside.any():
        box = boxes[outside.argmax()].tolist()
        raise UserError(
            f"{path}: the box with corners {box} of {image} lies outside of its {size[0]} x {size[1]} pixels; the JSON "
            "must be of these images, with bbox as x, y, width, height"
        )
    clipped: npt.NDArray[np.float32] = np.clip(boxes, 0, edges)
    return clipped
