"""Import and export proposals as COCO JSON; see `authors_json` for the authors' format."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ccop_hub.coco.findings import Findings
from ccop_hub.coco.reading import CocoImage, read_boxes
from ccop_hub.errors import UserError
from ccop_hub.files import make_folder, replacing
from ccop_hub.image_sources.coco_boxes import (
    SizeError,
    boxes_inside,
    match_listing,
    overhanging_boxes,
    true_size,
)
from ccop_hub.image_sources.stored_images import ImageSource
from ccop_hub.markup import visible
from ccop_hub.proposals.shards import ImageProposals, Manifest, ShardRows, notes_of, shard_bounds, shard_path

from .authors_json import write_proposals
from .publication import Shard

_SHARDS_A_BUCKET = 64  # shards per bucket when sorting boxes by image: 16 MB at 50 boxes per image
_BOXES_AT_ONCE = 1 << 18
_ENOUGH_IMAGES = 100
_MOST_OVERHANGING = 0.1  # of the images with boxes; above this, the boxes probably belong to other images

_NO_BOXES = np.zeros((0, 4), dtype=np.float32)
_RECORD = np.dtype([("index", np.int32), ("box", np.float32, 4)])


def hand_over(folder: Path, source: ImageSource, path: Path) -> int:
    """Export a folder of proposals as a COCO JSON, without the images that were left out of the proposals.

    Image ids are those of the source, or else count from 1 in key order.

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

    make_folder(path.parent)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        return write_proposals(file, images(), boxes())


def _image_id(source: ImageSource, image: str) -> int:
    index = source.keys.find(image)
    if index is None:
        raise UserError(f"{image} no longer exists; rerun `ccop-pretrain proposals`")
    return index + 1 if source.ids is None else int(source.ids[index])


def take_over(source: ImageSource, path: Path, folder: Path, settings: str, keep: int) -> Iterator[Shard]:
    """Import proposals from a COCO JSON as shards, keeping the first `keep` boxes per image in file order.

    Images are matched by `file_name`. Boxes are sorted by image in files under `folder`, so memory use does not grow
    with their number. Boxes are clipped to the actual size of the image file; a summary of those dropped and fixed is
    printed at the end.

    Args:
        source: the images. Those missing from the JSON are left out; those only in the JSON are ignored.
        path: COCO JSON.
        folder: folder for temporary files.
        settings: settings digest to record in the shards.
        keep: maximum number of boxes per image.

    Raises:
        UserError: the file is not a COCO JSON, none of its images is in the source, or the boxes of too many images do
            not fit them. The authors' original script writes such files, assigning boxes to the wrong images.
    """
    scratch = folder / "sorting"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    findings = Findings()
    boxed = overhanging = 0
    try:
        sizes, numbers = match_listing(source, path)
        _sort_into_buckets(path, numbers, scratch, findings)
        bucket = _Bucket(-1, {})
        for number, indices in shard_bounds(len(source)):
            if bucket.number != number // _SHARDS_A_BUCKET:
                bucket = _Bucket.read(scratch, number // _SHARDS_A_BUCKET)
            rows, skipped = [], {}
            for index in indices:
                image, (width, height) = source[index], sizes[index].tolist()
                if width < 0:
                    skipped[image.key] = f"{path.name} does not list it"
                    continue
                try:
                    size, turn = true_size(image, (width, height) if width > 0 else None, findings)
                except SizeError as error:
                    skipped[image.key] = f"{path.name} {error}"
                    continue
                given = turn(bucket.boxes.get(index, _NO_BOXES))
                boxed += len(given) > 0
                overhanging += bool(overhanging_boxes(given, size).any())
                boxes = boxes_inside(image.key, given, size, findings)[:keep]
                rows.append(ImageProposals(image.key, *size, boxes, image.state()[0], 0))
            if boxed >= _ENOUGH_IMAGES and overhanging > _MOST_OVERHANGING * boxed:
                raise UserError(
                    f"{path}: {overhanging} of {boxed} images have boxes that extend beyond the image; the JSON "
                    "must describe these images, with bbox as x, y, width, height"
                )
            yield Shard(number, notes_of(rows, skipped, settings), rows)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if findings:
        print(visible(f"note: {findings.summary(path)}"))


def _sort_into_buckets(path: Path, numbers: Mapping[int | str, int], scratch: Path, findings: Findings) -> None:
    """Append each box, with its image index, to its bucket's file."""
    indices: list[int] = []
    corners: list[tuple[float, float, float, float]] = []

    def flush() -> None:
        records = np.zeros(len(indices), dtype=_RECORD)
        records["index"] = indices
        records["box"] = np.array(corners, dtype=np.float64).reshape(-1, 4)
        buckets = records["index"] // _images_a_bucket()
        for bucket in np.unique(buckets).tolist():
            with (scratch / f"{bucket}").open("ab") as file:
                file.write(records[buckets == bucket].tobytes())
        indices.clear()
        corners.clear()

    for entry in read_boxes(path, findings):
        index = numbers.get(entry.image_id)
        if index is None:
            continue
        x, y, width, height = entry.box
        indices.append(index)
        corners.append((x, y, x + width, y + height))
        if len(indices) >= _BOXES_AT_ONCE:
            flush()
    flush()


def _images_a_bucket() -> int:
    return _SHARDS_A_BUCKET * len(next(shard_bounds(1 << 30))[1])


class _Bucket:
    """The boxes of one bucket by image index, in file order."""

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
