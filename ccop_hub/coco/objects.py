"""Stream the annotations of a COCO JSON in normalised form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from ..errors import UserError
from .boxes import read_box
from .findings import Findings, Kind
from .json_stream import stream_entries
from .listing import MAX_CATEGORIES, ImageEntry, Listing, too_many_categories, wrong_entry
from .masks import Box, Mask, mask_area, read_mask
from .orientation import turn_box, turn_mask
from .values import WrongValueError, flag, identifier, number, shown


class IdsNeedNumbersError(Exception):
    """An annotation id is missing, not a number, or 0, which pycocotools treats as missing: renumber them all."""


class ObjectReader:
    """Reads the annotations of a file.

    Args:
        path: the JSON file.
        listing: its images and categories.
        masks: drop objects without a mask.
        clip: clip boxes and masks to the image sizes, which must be correct.
        classes: drop annotations of unlisted categories; otherwise, add these categories to the listing.
        renumber: number the annotations from 1 in file order.

    Attributes:
        findings: problems found so far; complete after the last annotation.
        ids: new annotation id -> original id, if renumbered.
    """

    def __init__(self, path: Path, listing: Listing, *, masks: bool, clip: bool, classes: bool, renumber: bool) -> None:
        self._path = path
        self._listing = listing
        self._masks = masks
        self._clip = clip
        self._classes = classes
        self._renumber = renumber
        self._seen: dict[int | str, int] = {}
        self._largest = max((number for number, _ in listing.categories.values()), default=0)
        self._taken = {number for number, _ in listing.categories.values()}
        self.findings = Findings()
        self.ids: dict[int, int | str | None] = {}

    def __iter__(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield the objects that are kept, in file order.

        Yields:
            A dictionary with image_id, category_id, bbox, area, iscrowd and, if there is a mask, segmentation; and the
            same as JSON, with the id.

        Raises:
            UserError: an annotation is malformed, or two annotations with the same id differ.
            IdsNeedNumbersError: the ids need renumbering and `renumber` is False.
        """
        number = 0
        for _, place, entry in stream_entries(self._path, ("annotations",)):
            if type(entry) is not dict:
                raise wrong_entry(self._path, "annotations", place, entry, f"{shown(entry)} is not an object")
            try:
                key = self._key(entry.get("id"))
                found = self._read(entry, place if key is None else key)
            except WrongValueError as error:
                raise wrong_entry(self._path, "annotations", place, entry, str(error)) from None
            if found is None:
                continue
            body = orjson.dumps(found)
            if key is not None and self._is_repeated(key, body):
                continue
            number += 1
            if self._renumber:
                self.ids[number] = key
            yield found, b'{"id":%b,%b' % (str(number if self._renumber else key).encode(), body[1:])
        if self._renumber and number:
            self.findings.add(Kind.ANNOTATION_IDS, self.ids[1] if self.ids[1] is not None else "none", number)

    def _key(self, value: Any) -> int | str | None:
        if self._renumber:
            return None if value is None else identifier(value)
        key = None if value is None else identifier(value)
        if not isinstance(key, int) or key == 0:
            raise IdsNeedNumbersError
        return key

    def _is_repeated(self, key: int | str, body: bytes) -> bool:
        mark = hash(body)
        there = self._seen.get(key)
        if there is None:
            self._seen[key] = mark
            return False
        if there != mark:
            raise UserError(
                f"{self._path} has two different annotations with id {key}; give each annotation a unique id"
            )
        self.findings.add(Kind.EQUAL_ANNOTATION, key)
        return True

    def _read(self, entry: dict[str, Any], key: int | str) -> dict[str, Any] | None:
        """Return the object without its id, or None to drop it."""
        try:
            image = self._listing.images.get(identifier(entry.get("image_id")))
        except WrongValueError as error:
            raise WrongValueError(f"image_id: {error}") from None
        if image is None:
            self.findings.add(Kind.UNKNOWN_IMAGE, key)
            return None
        category = self._category(entry.get("category_id"))
        if category is None:
            self.findings.add(Kind.UNKNOWN_CATEGORY, key)
            return None
        met: list[Kind] = []
        found = self._object(entry, image, met)
        for kind in dict.fromkeys(met):
            self.findings.add(kind, key, met.count(kind))
        if found is None:
            return None
        return {"image_id": image.id, "category_id": category[0], **found}

    def _category(self, value: Any) -> tuple[int, str] | None:
        known = self._listing.categories
        if value is None and not self._classes:
            value = 0
        try:
            key = identifier(value)
        except WrongValueError as error:
            raise WrongValueError(f"category_id: {error}") from None
        if key not in known and not self._classes:
            if len(known) >= MAX_CATEGORIES:
                raise too_many_categories(self._path)
            number = key if isinstance(key, int) and key not in self._taken else self._largest + 1
            self._taken.add(number)
            self._largest = max(self._largest, number)
            known[key] = number, str(key)
        return known.get(key)

    def _object(self, entry: dict[str, Any], image: ImageEntry, met: list[Kind]) -> dict[str, Any] | None:
        size = (image.stored or image.size) if self._clip else None
        box = read_box(entry.get("bbox"), size, met)
        if box is None:
            return None
        mask = read_mask(entry.get("segmentation"), size, box, met)
        if mask is None and self._masks:
            met.append(Kind.WITHOUT_MASK)
            return None
        area = _area(entry.get("area"), box, mask, met)
        if image.stored is not None:
            box = turn_box(box, image.orientation, image.stored)
            mask = mask and turn_mask(mask, image.orientation, image.stored)
        found = {"bbox": box, "area": area, "iscrowd": _crowd(entry, met)}
        if mask is not None:
            found["segmentation"] = mask
        if entry.get("difficult") is not None:  # Pascal VOC's flag for objects that its evaluation ignores
            found["difficult"] = int(flag(entry["difficult"]))
        return found


def _crowd(entry: dict[str, Any], met: list[Kind]) -> int:
    crowd = entry.get("iscrowd")
    if type(crowd) is not int or crowd not in (0, 1):
        met.append(Kind.CROWD_FLAG)
        try:
            crowd = int(flag(crowd))
        except WrongValueError as error:
            raise WrongValueError(f"iscrowd: {error}") from None
    if "ignore" in entry and not crowd:
        try:
            ignored = flag(entry["ignore"])
        except WrongValueError as error:
            raise WrongValueError(f"ignore: {error}") from None
        if ignored:
            met.append(Kind.IGNORED)
            return 1
    return crowd


def _area(given: Any, box: Box, mask: Mask | None, met: list[Kind]) -> float:
    """Return the area in square pixels: the given one, else that of the mask, else that of the box."""
    if isinstance(given, (list, dict)):
        raise WrongValueError(f"area: {shown(given)} is not a number")
    if isinstance(given, str):
        try:
            given = number(given)
            met.append(Kind.TEXT_NUMBER)
        except WrongValueError:
            given = None
    if type(given) is float or type(given) is int:
        try:
            area = number(given)
        except WrongValueError as error:
            raise WrongValueError(f"area: {error}") from None
        if area > 0:
            return area
    met.append(Kind.AREA)
    return (mask_area(mask) if mask is not None else 0.0) or box[2] * box[3]
