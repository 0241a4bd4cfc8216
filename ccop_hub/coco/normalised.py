"""Normalised copies of COCO JSON files, written once to the cache. All other code reads only these copies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson

from ..errors import UserError
from ..files import file_digest, replacing, write_atomically
from ..regular_files import read_json
from ..sources.cache import cache_root
from .findings import Findings, Kind
from .listing import Listing, check_sizes, find_images, read_listing
from .objects import IdsNeedNumbersError, ObjectReader

MaskFormat = Literal["polygon", "bitmask"]

RULES = 2
"""Increase when a change of the rules can change a copy, so that outdated copies in the cache are ignored."""

REPORT_SUFFIX = ".report.json"
"""Suffix of the report written next to a copy."""

_LARGEST_REPORT = 1 << 30
"""Maximum size of a report in bytes; it lists every annotation that was renumbered."""

_REPORTED = {
    *("images", "objects", "objects with a mask", "annotations without a mask"),
    *("masks", "classes", "root categories", "summary", "findings"),
}
"""Entries of a report that are read back."""

_FOLDER = "annotations"
_WRITTEN_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class NormalisedCoco:
    """A fully validated COCO JSON.

    Attributes:
        source: the user's file.
        copy: the normalised copy. Image and annotation ids are integers, annotation ids at least 1; boxes are
            [x, y, width, height] in pixels of the upright image, with a positive area; every object has `iscrowd` and
            `area`; masks are polygons of at least three points, or run lengths that cover the image exactly.
        images: number of images, including those without annotations.
        objects: number of non-crowd objects.
        masked: number of non-crowd objects with a mask.
        maskless: number of annotations, including crowds, without a mask.
        masks: mask format of the non-crowd objects; None if no object has a mask.
        classes: category id -> class name, sorted by id.
        roots: ids of categories that only group others; included in `classes` on request.
        summary: one line on what was dropped, fixed and computed; empty if nothing was.
        kinds: names of the kinds of findings in `summary`.
        files: (name, size in bytes) of the image files, sorted by name; empty if no folder was given.
    """

    source: Path
    copy: Path
    images: int
    objects: int
    masked: int
    maskless: int
    masks: MaskFormat | None
    classes: Mapping[int, str]
    roots: frozenset[int]
    summary: str
    kinds: frozenset[str]
    files: tuple[tuple[str, int], ...]

    def content(self, immaterial: Collection[Kind] = ()) -> Path:
        """Return the file whose bytes identify the content: the user's file if unchanged, else the copy.

        Args:
            immaterial: kinds of findings that make no difference to readers.
        """
        return self.copy if self.kinds - {kind.name for kind in immaterial} else self.source


def normalise(
    path: Path, folder: Path | None = None, *, masks: bool = False, roots: bool = False, classes: bool = True
) -> NormalisedCoco:
    """Validate a COCO JSON and write its normalised copy, unless the cache has one.

    Args:
        path: the JSON file.
        folder: the image folder; each image must exist, and its header is checked against the listed size. With None,
            images are not checked and boxes are not clipped.
        masks: drop objects without a mask.
        roots: keep categories without annotations that only serve as the `supercategory` of others.
        classes: whether `categories` must list every category in use; otherwise, missing ones are added.

    Raises:
        UserError: the file is not in any dialect of COCO's instance format. The message names the file, the entry and
            the remedy.
    """
    source_digest = _digest(path)
    listing = read_listing(path, classes)
    files: list[tuple[str, int, int]] = []
    if folder is not None:
        found = find_images(path, listing, folder)
        files = sorted((name, status.st_size, status.st_mtime_ns) for name, status in found.items())
    identity = json.dumps([RULES, source_digest, files, masks, roots, classes])
    place = cache_root() / _FOLDER / hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:16]
    copy = place / f"{path.stem}.json"
    report = copy.with_suffix(REPORT_SUFFIX)
    known = _known(copy, report)
    if known is None:
        if folder is not None:
            check_sizes(path, listing, folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot create {place} ({error.strerror or error}); set CCOP_CACHE to a writable folder"
            ) from None
        _write(path, listing, copy, source_digest, masks=masks, roots=roots, clip=folder is not None, classes=classes)
        known = _known(copy, report)
    if known is None:
        raise UserError(f"{place} cannot be read back; set CCOP_CACHE to a folder on another disk")
    return _open(path, copy, known, files)


def _known(copy: Path, report: Path) -> dict[str, Any] | None:
    """Return the report on a copy; None if there is no copy, or its report is damaged."""
    try:
        found = read_json(report, _LARGEST_REPORT)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.keys() >= _REPORTED and copy.is_file() else None


def only_roots_differ(one: NormalisedCoco, other: NormalisedCoco) -> bool:
    """Whether the classes of two files differ only by grouping categories that one of the files annotates.

    If so, both files must be normalised with `roots`.
    """
    differing = {number for number, _ in one.classes.items() ^ other.classes.items()}
    return bool(differing) and differing <= one.roots & other.roots


def _digest(path: Path) -> str:
    try:
        return file_digest(path).removeprefix("sha256:")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}); give a COCO JSON file") from None


def _open(path: Path, copy: Path, report: Mapping[str, Any], files: Iterable[tuple[str, int, int]]) -> NormalisedCoco:
    return NormalisedCoco(
        source=path,
        copy=copy,
        images=report["images"],
        objects=report["objects"],
        masked=report["objects with a mask"],
        maskless=report["annotations without a mask"],
        masks=report["masks"],
        classes=dict(report["classes"]),
        roots=frozenset(report["root categories"]),
        summary=report["summary"],
        kinds=frozenset(entry["kind"].upper() for entry in report["findings"]),
        files=tuple((name, size) for name, size, _ in files),
    )


def _write(
    path: Path, listing: Listing, copy: Path, source_digest: str, *, masks: bool, roots: bool, clip: bool, classes: bool
) -> None:
    """Write the copy, then the report. The copy is valid only once the report exists."""

    def written(renumber: bool) -> _Copy:
        reader = ObjectReader(path, listing, masks=masks, clip=clip, classes=classes, renumber=renumber)
        content = _Copy(path, listing, reader, roots)
        with replacing(copy) as partial:
            content.write(partial)
        return content

    try:
        content = written(renumber=False)
    except IdsNeedNumbersError:
        content = written(renumber=True)
    report = {"source": path.name, "source sha256": source_digest, **content.report()}
    write_atomically(copy.with_suffix(REPORT_SUFFIX), _indented(report) + b"\n")


class _Copy:
    """Writes a copy and counts its contents."""

    def __init__(self, path: Path, listing: Listing, reader: ObjectReader, roots: bool) -> None:
        self._path = path
        self._listing = listing
        self._reader = reader
        self._roots = roots
        self._digest = hashlib.sha256()
        self._images = self._objects = self._masked = self._maskless = self._run_lengths = 0
        self._classes: list[tuple[int, str]] = []
        self._left_out = Findings()

    def write(self, partial: Path) -> None:
        with partial.open("wb") as file:
            self._put(file, b'{"info":{},"images":[')
            self._put_all(file, self._image_lines())
            self._put(file, b'],"annotations":[')
            used: set[int] = set()
            self._put_all(file, self._object_lines(used))
            self._put(file, b'],"categories":[')
            self._choose_classes(used)
            entries = [_line({"id": number, "name": name}) for number, name in self._classes]
            self._put(file, b",".join(entries) + b"]}")

    def report(self) -> dict[str, Any]:
        findings = Findings.merged(self._reader.findings, self._listing.findings, self._left_out)
        renumbered: dict[str, dict[int, Any]] = {}
        for name, ids in (
            ("images", {entry.id: key for key, entry in self._listing.images.items()}),
            ("categories", {number: key for key, (number, _) in self._listing.categories.items()}),
            ("annotations", self._reader.ids),
        ):
            if any(number != key for number, key in ids.items()):
                renumbered[name] = dict(ids)
        return {
            "copy sha256": self._digest.hexdigest(),
            "images": self._images,
            "objects": self._objects,
            "objects with a mask": self._masked,
            "annotations without a mask": self._maskless,
            "masks": ("bitmask" if self._run_lengths else "polygon") if self._masked else None,
            "classes": self._classes,
            "root categories": sorted(self._listing.roots),
            "summary": findings.summary(self._path),
            "findings": findings.report(),
            "original ids by new ones": renumbered,
        }

    def _image_lines(self) -> Iterator[bytes]:
        for image in self._listing.different_images():
            self._images += 1
            width, height = image.size or (None, None)
            yield _line({"id": image.id, "file_name": image.file_name, "width": width, "height": height})

    def _object_lines(self, used: set[int]) -> Iterator[bytes]:
        for entry, line in self._reader:
            used.add(entry["category_id"])
            mask = entry.get("segmentation")
            self._maskless += mask is None
            if not entry["iscrowd"]:
                self._objects += 1
                self._masked += mask is not None
                self._run_lengths += isinstance(mask, dict)
            yield line

    def _choose_classes(self, used: set[int]) -> None:
        for number, name in sorted(self._listing.categories.values()):
            if number in self._listing.roots and number not in used and not self._roots:
                self._left_out.add(Kind.ROOT_CATEGORY, f"{number} {name!r}")
            else:
                self._classes.append((number, name))

    def _put_all(self, file: BinaryIO, lines: Iterable[bytes]) -> None:
        waiting: list[bytes] = []
        first = True
        for line in lines:
            waiting.append(line)
            if len(waiting) == _WRITTEN_AT_ONCE:
                self._put(file, (b"" if first else b",") + b",".join(waiting))
                first = False
                waiting.clear()
        if waiting:
            self._put(file, (b"" if first else b",") + b",".join(waiting))

    def _put(self, file: BinaryIO, content: bytes) -> None:
        self._digest.update(content)
        file.write(content)


def _indented(report: dict[str, Any]) -> bytes:
    try:
        # json.dumps takes gigabytes to indent a report on a million annotations.
        return orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a file name that is not UTF-8
        return json.dumps(report).encode()


def _line(entry: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(entry)
    except TypeError:  # a file name that is not UTF-8
        return json.dumps(entry).encode()
