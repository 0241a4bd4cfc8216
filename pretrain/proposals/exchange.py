"""Import and export proposals as COCO JSON; see `authors_json` for the authors' format."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ccop_hub.coco.boxes import TOLERANCE
from ccop_hub.coco.file_names import find_file
from ccop_hub.coco.findings import Findings, Kind
from ccop_hub.coco.orientation import turn_box
from ccop_hub.coco.reading import CocoImage, read_boxes, read_images
from ccop_hub.errors import UserError
from ccop_hub.files import make_folder, replacing
from ccop_hub.image_sources.source import ImageSource, StoredImage
from ccop_hub.images import ImageHeader, UnreadableImageError, decode_header, read_header
from ccop_hub.markup import visible
from ccop_hub.proposals.shards import ImageProposals, Manifest, ShardRows, notes_of, shard_bounds, shard_path

from .authors_json import write_proposals
from .publication import Shard

_SHARDS_A_BUCKET = 64  # shards per bucket when sorting boxes by image: 16 MB at 50 boxes per image
_BOXES_AT_ONCE = 1 << 18
_ENOUGH_IMAGES = 100
_MOST_OVERHANGING = 0.1  # of the images with boxes; above this, the boxes probably belong to other images

Boxes = npt.NDArray[np.float32]
"""(N, 4) xyxy, in absolute pixels."""

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
        sizes, numbers = _read_listing(source, path)
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
                    size, turn = _true_size(image, (width, height) if width > 0 else None, findings)
                except _SizeError as error:
                    skipped[image.key] = f"{path.name} {error}"
                    continue
                given = turn(bucket.boxes.get(index, _NO_BOXES))
                boxed += len(given) > 0
                overhanging += bool(_overhang(given, size).any())
                boxes = _inside(image.key, given, size, findings)[:keep]
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


def _read_listing(source: ImageSource, path: Path) -> tuple[npt.NDArray[np.int32], dict[int | str, int]]:
    """Return (N, 2) width and height by image index (-1: not listed, 0: no size), and the index of each COCO id."""
    sizes = np.full((len(source), 2), -1, dtype=np.int32)
    numbers: dict[int | str, int] = {}
    loosely: dict[int, str] = {}  # images whose file name does not match literally
    for entry in read_images(path):
        literal = source.keys.find(entry.file_name)
        index = literal if literal is not None else _find(source, entry.file_name)
        if index is None:
            continue
        other = loosely.get(index, source.keys[index] if sizes[index, 0] >= 0 else entry.file_name)
        if other != entry.file_name:
            raise UserError(
                f"{path} lists {other} and {entry.file_name}, which both match {source.keys[index]}; "
                "file_name must be the path relative to the images"
            )
        if literal is None:
            loosely[index] = entry.file_name
        if numbers.setdefault(entry.id, index) != index:
            raise UserError(f"{path} has two images with id {entry.id}; give each image a unique id")
        sizes[index] = entry.width or 0, entry.height or 0
    if not numbers:
        raise UserError(
            f"none of the images of {path} is among the {len(source)} of {source.name!r} (first: {source.keys[0]}); "
            "file_name must be the path relative to the images"
        )
    return sizes, numbers


def _find(source: ImageSource, name: str) -> int | None:
    found = find_file(name, lambda key: source.keys.find(key) is not None)
    return None if found is None else source.keys.find(found)


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


class _SizeError(Exception):
    """The image's size cannot be determined; the message says why."""


_Turn = Callable[[Boxes], Boxes]


def _true_size(image: StoredImage, listed: tuple[int, int] | None, findings: Findings) -> tuple[tuple[int, int], _Turn]:
    """Return the width and height of the upright image, and the function that rotates its boxes upright.

    Raises:
        _SizeError: the file's size differs from the listed one, or neither gives a size.
    """
    try:
        if image.length is None:
            header = read_header(image.path)
        else:
            header = decode_header(BytesIO(image.read_bytes()), image.path)
    except UnreadableImageError:
        # Ignore the damage here; it is reported when the pixels are read.
        if listed is None:
            raise _SizeError("has no size of it, and neither has its file") from None
        return listed, _as_it_is
    if listed == header.upright:
        return header.upright, _as_it_is
    if listed is None:
        findings.add(Kind.SIZE, image.key)
    elif listed == header.stored:
        findings.add(Kind.ROTATED, image.key)
        return header.upright, functools.partial(_turned, header)
    elif listed == header.upright[::-1]:
        findings.add(Kind.SWAPPED_SIZE, image.key)
    else:
        raise _SizeError(
            f"lists it with {listed[0]} x {listed[1]} pixels, but it has {header.upright[0]} x {header.upright[1]}"
        )
    return header.upright, _as_it_is


def _as_it_is(boxes: Boxes) -> Boxes:
    return boxes


def _turned(header: ImageHeader, boxes: Boxes) -> Boxes:
    """Rotate xyxy boxes upright with their image, unless they only fit the image that is already upright."""
    far = boxes[:, 2:].max(axis=0, initial=0)
    if (far > np.add(header.stored, 1)).any() and (far <= np.add(header.upright, 1)).all():
        return boxes
    turned = np.zeros_like(boxes)
    for place, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        x, y, width, height = turn_box((x1, y1, x2 - x1, y2 - y1), header.orientation, header.stored)
        turned[place] = x, y, x + width, y + height
    return turned


def _overhang(boxes: Boxes, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Mark the boxes that exceed an image of (width, height) by more than rounding error: (N,) bool."""
    edges = np.tile(np.asarray(size, dtype=np.float32), 2)
    return np.asarray(((boxes < -TOLERANCE) | (boxes > edges + TOLERANCE)).any(axis=1))


def _inside(image: str, boxes: Boxes, size: tuple[int, int], findings: Findings) -> Boxes:
    """Clip boxes to their image, dropping those entirely outside it."""
    edges = np.tile(np.asarray(size, dtype=np.float32), 2)
    clipped: Boxes = np.clip(boxes, 0, edges)
    kept = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    over = int((_overhang(boxes, size) & kept).sum())
    for kind, count in ((Kind.BOX_CLIPPED, over), (Kind.BOX_OUTSIDE, int((~kept).sum()))):
        if count:
            findings.add(kind, image, count)
    return clipped[kept]
