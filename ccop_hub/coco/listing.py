"""Read and validate the images and categories of a COCO JSON."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.progress import track

from ..errors import UserError, first_names
from ..images import ImageHeader, UnreadableImageError, read_header
from .file_names import file_in, find_file, image_name, same_name
from .findings import Findings, Kind
from .json_stream import stream_entries
from .values import WrongValueError, identifier, is_unicode, number, shown

MAX_CATEGORIES = 100_000
"""Most categories of a file, several times those of the largest data sets (ImageNet-21K has 21,841)."""

_LONGEST_CATEGORY = 1000  # characters
_NAMED = 5
_MISSING_AT_MOST = 1000
"""Missing images after which no more are looked up; a name with many folders takes many lookups."""

_OTHER_TASKS = {"segments_info": "panoptic segments", "caption": "captions", "question": "questions"}
"""Entries of annotations for other tasks of COCO."""

_THREADS = 8
_PROGRESS_FROM = 2000  # images
_LONGEST_SIDE = (1 << 31) - 1  # pixels; the limit of image formats


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """An entry of `images`.

    Attributes:
        id: id in the normalised copy.
        file_name: path, absolute or relative to the image folder.
        size: width and height of the upright image in pixels, or None if unknown.
        stored: width and height before EXIF rotation if the annotations refer to the stored pixels, else None.
        orientation: EXIF orientation to apply to the annotations; 1 for none.
    """

    id: int
    file_name: str
    size: tuple[int, int] | None
    stored: tuple[int, int] | None = None
    orientation: int = 1


@dataclass
class Listing:
    """Images and categories of a file.

    Attributes:
        images: entries, keyed by their original id.
        categories: (id, name), keyed by the original id.
        roots: new ids of top-level categories that are the supercategory of others.
        findings: problems found in them.
    """

    images: dict[int | str, ImageEntry] = field(default_factory=dict)
    categories: dict[int | str, tuple[int, str]] = field(default_factory=dict)
    roots: set[int] = field(default_factory=set)
    findings: Findings = field(default_factory=Findings)

    def different_images(self) -> Iterator[ImageEntry]:
        """Yield each image once, in file order."""
        seen = set()
        for image in self.images.values():
            if image.id not in seen:
                seen.add(image.id)
                yield image


@dataclass(frozen=True, slots=True)
class RawImage:
    """An image as listed; `size` is (width, height), or None if either is absent or 0."""

    id: int | str
    file_name: str
    size: tuple[int, int] | None


def read_listing(path: Path, classes: bool = True) -> Listing:
    """Read the images and categories of a file.

    Args:
        path: the JSON file.
        classes: whether `categories` is required.

    Raises:
        UserError: the file is not in COCO format, or two entries with the same id or class name conflict.
    """
    listing = Listing()
    images: dict[int | str, RawImage] = {}
    categories: dict[int | str, tuple[str, str]] = {}
    for section, place, entry in stream_entries(path, ("images", "categories")):
        if section == "images":
            image = raw_image(path, place, entry)
            there = images.setdefault(image.id, image)
            if there != image:
                raise UserError(
                    f"{path} has two images with id {image.id}: {there.file_name} and {image.file_name}; give each "
                    "image a unique id"
                )
            if there is not image:
                listing.findings.add(Kind.EQUAL_IMAGE, image.id)
        else:
            key, name, above = _raw_category(path, place, entry)
            if key not in categories:
                if len(categories) == MAX_CATEGORIES:
                    raise too_many_categories(path)
                categories[key] = name, above
            elif categories[key][0] == name:
                listing.findings.add(Kind.EQUAL_CATEGORY, key)
            else:
                raise UserError(
                    f"{path} has two categories with id {key}: {categories[key][0]!r} and {name!r}; give each "
                    "category a unique id"
                )
    for kind, entries in (("images", images), ("categories", categories)):
        if not entries and (classes or kind == "images"):
            raise UserError(f"{path} lists no {kind}: give a COCO JSON with images, annotations and categories")
    _number_images(listing, images)
    _number_categories(path, listing, categories)
    return listing


def raw_image(path: Path, place: int, entry: Any) -> RawImage:
    """Check an entry of `images`.

    Args:
        path: the JSON file, for error messages.
        place: index of the entry in the list, from 0.
        entry: the decoded JSON value.

    Raises:
        UserError: the entry is not an object, lacks an id or a file name, or has a non-numeric width or height.
    """
    if type(entry) is not dict:
        raise wrong_entry(path, "images", place, entry, f"{shown(entry)} is not an object")
    value = None
    try:
        value = "id"
        key = identifier(entry.get("id"))
        value = "file_name"
        name = image_name(entry)
        value = "width and height"
        sides = [number(entry.get(side) or 0) for side in ("width", "height")]
        if max(sides) > _LONGEST_SIDE:
            raise WrongValueError(f"{max(sides):g} pixels are more than any image has")
    except WrongValueError as error:
        raise wrong_entry(path, "images", place, entry, f"{value}: {error}") from None
    whole = all(side > 0 and side == int(side) for side in sides)
    return RawImage(key, name, (int(sides[0]), int(sides[1])) if whole else None)


def too_many_categories(path: Path) -> UserError:
    """Build an error for a file with more than `MAX_CATEGORIES` categories."""
    return UserError(f"{path} has more than {MAX_CATEGORIES} categories: merge or remove categories")


def wrong_entry(path: Path, section: str, place: int, entry: Any, what: str) -> UserError:
    """Build an error that names the file, the entry and the problem."""
    named = entry.get("id") if isinstance(entry, dict) else None
    kind = {"images": "image", "categories": "category", "annotations": "annotation"}[section]
    where = f"{kind} {shown(named)}" if named is not None else f"entry {place} of {section!r}"
    other = next((task for key, task in _OTHER_TASKS.items() if isinstance(entry, dict) and key in entry), None)
    if other is not None and section == "annotations":
        return UserError(f"{path} contains {other}, not boxes of objects ({where}: {what}); give the instances JSON")
    return UserError(f"{path} is not a COCO JSON: {where}: {what}; correct or remove the entry")


def _raw_category(path: Path, place: int, entry: Any) -> tuple[int | str, str, str]:
    """Return the id, name and supercategory of a category entry."""
    if type(entry) is not dict:
        raise wrong_entry(path, "categories", place, entry, f"{shown(entry)} is not an object")
    try:
        key = identifier(entry.get("id"))
    except WrongValueError as error:
        raise wrong_entry(path, "categories", place, entry, f"id: {error}") from None
    name = entry.get("name")
    if isinstance(name, (int, float)) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not name.strip():
        raise wrong_entry(path, "categories", place, entry, "it has no name")
    if len(name) > _LONGEST_CATEGORY:
        what = f"its name {shown(name)} has more than {_LONGEST_CATEGORY} characters"
        raise wrong_entry(path, "categories", place, entry, what)
    if not is_unicode(name):
        raise wrong_entry(path, "categories", place, entry, f"its name {shown(name)} is not valid Unicode")
    above = entry.get("supercategory")
    return key, name, above if isinstance(above, str) else ""


def _number_images(listing: Listing, images: Mapping[int | str, RawImage]) -> None:
    numbers = number_ids(images, listing.findings, Kind.IMAGE_IDS)
    listing.images = {key: ImageEntry(numbers[key], image.file_name, image.size) for key, image in images.items()}


def _number_categories(path: Path, listing: Listing, categories: Mapping[int | str, tuple[str, str]]) -> None:
    numbers = number_ids(categories, listing.findings, Kind.CATEGORY_IDS)
    by_name: dict[str, int | str] = {}
    for key, (name, _) in categories.items():
        if by_name.setdefault(name, key) != key:
            raise UserError(
                f"{path} has two categories named {name!r}, with ids {by_name[name]} and {key}: give each category "
                "a unique name"
            )
    parents = {above for name, above in categories.values() if above != name}
    for key, (name, above) in categories.items():
        if name in parents and (above == name or above not in by_name):
            listing.roots.add(numbers[key])
    listing.categories = {key: (numbers[key], name) for key, (name, _) in categories.items()}


def number_ids(keys: Iterable[int | str], findings: Findings, kind: Kind) -> dict[int | str, int]:
    """Map ids to integers: unchanged if all are integers, else numbered from 1 in file order."""
    keys = list(keys)
    texts = [key for key in keys if isinstance(key, str)]
    if not texts:
        return {key: key for key in keys if isinstance(key, int)}
    findings.add(kind, texts[0], len(keys))
    return {key: place for place, key in enumerate(keys, start=1)}


def find_images(path: Path, listing: Listing, folder: Path) -> dict[str, os.stat_result]:
    """Find each image in `folder` and merge entries for the same file; modifies `listing` in place.

    Returns:
        The stat result of each file, keyed by name.

    Raises:
        UserError: files are missing, or two different entries refer to the same file.
    """
    exists = file_in(folder)
    found: dict[str, os.stat_result] = {}
    owners: dict[str, tuple[str, ImageEntry]] = {}
    missing: list[str] = []
    for key, image in listing.images.items():
        name = given = image.file_name
        other = find_file(name, exists)
        if other is None:
            missing.append(name)
            if len(missing) > _MISSING_AT_MOST:
                break
            continue
        if other != name:
            listing.findings.add(Kind.FILE_NAME, key)
            name, image = other, replace(image, file_name=other)
        listed, owner = owners.setdefault(posixpath.normpath(name), (given, image))
        if owner is not image:
            if owner.size != image.size:
                raise UserError(f"{path} lists {name} twice, with different sizes; list each image once")
            if not same_name(listed, given):
                raise UserError(
                    f"{path} lists {listed} and {given}, which both match {name} in {folder}; file_name must be the "
                    "path relative to the images"
                )
            listing.findings.add(Kind.EQUAL_IMAGE, key)
        listing.images[key] = owner
        found[owner.file_name] = (folder / name).stat()
    if missing:
        count = str(len(missing)) if len(missing) <= _MISSING_AT_MOST else f"more than {_MISSING_AT_MOST}"
        raise UserError(
            f"{count} images of {path} are not in {folder}: {first_names(missing, _NAMED)}; "
            "add the files or remove the entries from the JSON"
        )
    return found


def check_sizes(path: Path, listing: Listing, folder: Path) -> None:
    """Check the listed sizes against the image files and correct them; modifies `listing` in place.

    Swapped or missing sizes are taken from the file. If EXIF rotates an image by 90 degrees and the listed size is that
    of the stored pixels, the annotations are assumed to refer to the stored pixels too, unless their boxes only fit the
    upright image.

    Raises:
        UserError: a file is not an image, or its size differs from the listed one.
    """
    entries = list(listing.different_images())
    sideways: dict[int, ImageHeader] = {}
    sized: dict[int, ImageEntry] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = pool.map(_header_or_reason, (folder / entry.file_name for entry in entries))
        shown_headers = track(
            zip(entries, headers, strict=True),
            "reading image sizes",
            total=len(entries),
            transient=True,
            disable=len(entries) < _PROGRESS_FROM,
        )
        for entry, header in shown_headers:
            if isinstance(header, str):
                raise UserError(
                    f"{folder / entry.file_name} cannot be read: {header}; replace the image or remove it from {path}"
                )
            if entry.size == header.upright:
                continue
            sized[entry.id] = replace(entry, size=header.upright)
            if entry.size is None:
                listing.findings.add(Kind.SIZE, entry.id)
            elif entry.size == header.stored:
                sideways[entry.id] = header
            elif entry.size == header.upright[::-1]:
                listing.findings.add(Kind.SWAPPED_SIZE, entry.id)
            else:
                raise UserError(
                    f"{folder / entry.file_name} has {_sides(header.upright)} pixels, but {path} lists it with "
                    f"{_sides(entry.size)}: correct the annotations or the image"
                )
    upright = _annotated_upright(path, listing, sideways)
    for key, header in sideways.items():
        if key in upright:
            listing.findings.add(Kind.SWAPPED_SIZE, key)
        else:
            listing.findings.add(Kind.ROTATED, key)
            sized[key] = replace(sized[key], stored=header.stored, orientation=header.orientation)
    for original, entry in listing.images.items():
        listing.images[original] = sized.get(entry.id, entry)


def _header_or_reason(path: Path) -> ImageHeader | str:
    try:
        return read_header(path)
    except UnreadableImageError as error:
        return error.reason


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _annotated_upright(path: Path, listing: Listing, sideways: Mapping[int, ImageHeader]) -> set[int]:
    """Return the ids of rotated images whose boxes exceed the stored image but fit the upright one."""
    if not sideways:
        return set()
    reach: dict[int, tuple[float, float]] = {}
    for _, _, entry in stream_entries(path, ("annotations",)):
        try:
            image = listing.images[identifier(entry["image_id"])].id
            if image in sideways:
                x, y, width, height = map(number, entry["bbox"])
                before = reach.get(image, (0.0, 0.0))
                reach[image] = max(before[0], x, x + width), max(before[1], y, y + height)
        except (KeyError, TypeError, ValueError):  # `ObjectReader` reports malformed annotations later
            continue
    return {
        image
        for image, (right, bottom) in reach.items()
        if not _fits(right, bottom, sideways[image].stored) and _fits(right, bottom, sideways[image].upright)
    }


def _fits(right: float, bottom: float, size: tuple[int, int]) -> bool:
    return right <= size[0] + 1 and bottom <= size[1] + 1
