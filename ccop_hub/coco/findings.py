"""Count what was dropped, fixed and computed while reading a file, with the first ids of each kind."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

_NAMED = 3


class Kind(enum.Enum):
    """A kind of problem: (action taken, on what, type of the ids).

    Summaries list kinds in the order of the members.
    """

    BOX_WITHOUT_AREA = ("dropped", "objects whose box has no width or height", "annotation")
    BOX_OUTSIDE = ("dropped", "objects outside their image", "annotation")
    WITHOUT_MASK = ("dropped", "objects without a mask", "annotation")
    UNKNOWN_IMAGE = ("dropped", "annotations of images that are not listed", "annotation")
    UNKNOWN_CATEGORY = ("dropped", "annotations of categories that are not listed", "annotation")
    EQUAL_ANNOTATION = ("dropped", "annotations that repeat another", "annotation")
    EQUAL_IMAGE = ("dropped", "image entries that repeat another", "image")
    EQUAL_CATEGORY = ("dropped", "category entries that repeat another", "category")
    BAD_POLYGON = ("dropped", "polygons of fewer than three points or an odd number of coordinates", "annotation")
    BAD_MASK = ("dropped", "masks that do not fit their image", "annotation")
    ROOT_CATEGORY = ("left out", "categories that only group others", "category")
    NEGATIVE_SIDE = ("fixed", "boxes with a negative width or height", "annotation")
    BOX_CLIPPED = ("clipped", "boxes that reach beyond their image", "annotation")
    POLYGON_CLIPPED = ("clipped", "polygons that reach beyond their image", "annotation")
    TEXT_NUMBER = ("fixed", "boxes, areas or masks with numbers as text", "annotation")
    FLAT_POLYGON = ("fixed", "polygons in another nesting than COCO's", "annotation")
    RUN_LENGTHS = ("fixed", "masks whose run lengths were in another form", "annotation")
    CROWD_FLAG = ("computed", "missing or odd iscrowd flags", "annotation")
    IGNORED = ("fixed", "objects marked 'ignore', which count as crowds now", "annotation")
    AREA = ("computed", "areas", "annotation")
    SIZE = ("computed", "image sizes", "image")
    SWAPPED_SIZE = ("fixed", "images whose width and height were swapped", "image")
    ROTATED = ("rotated", "annotations of images that EXIF turns", "image")
    FILE_NAME = ("fixed", "file names", "image")
    IMAGE_IDS = ("renumbered", "image ids", "image")
    CATEGORY_IDS = ("renumbered", "category ids", "category")
    ANNOTATION_IDS = ("renumbered", "annotation ids", "annotation")

    @property
    def action(self) -> str:
        """Action taken: dropped, fixed, computed..."""
        return str(self.value[0])

    @property
    def what(self) -> str:
        """What the action was taken on, in the plural."""
        return str(self.value[1])

    @property
    def subject(self) -> str:
        """Type of the ids: annotation, image or category."""
        return str(self.value[2])


class Findings:
    """Counts per kind, with the first ids of each."""

    def __init__(self) -> None:
        self._counts: dict[Kind, int] = {}
        self._first: dict[Kind, list[int | str]] = {}

    def add(self, kind: Kind, identifier: int | str, count: int = 1) -> None:
        """Record one or more findings for an entry."""
        self._counts[kind] = self._counts.get(kind, 0) + count
        first = self._first.setdefault(kind, [])
        if len(first) < _NAMED and identifier not in first:
            first.append(identifier)

    def count(self, kind: Kind) -> int:
        """Return the number of findings of a kind."""
        return self._counts.get(kind, 0)

    @classmethod
    def merged(cls, *parts: Findings) -> Findings:
        """Return the sum of several findings without modifying them."""
        total = cls()
        for part in parts:
            for kind, count in part._counts.items():
                total._counts[kind] = total._counts.get(kind, 0) + count
                first = total._first.setdefault(kind, [])
                first += part._first[kind][: _NAMED - len(first)]
        return total

    def __bool__(self) -> bool:
        return bool(self._counts)

    def kinds(self) -> set[Kind]:
        """Return the kinds with at least one finding."""
        return set(self._counts)

    def summary(self, path: Path) -> str:
        """Return a one-line summary; empty if there are no findings."""
        if not self:
            return ""
        parts = []
        for kind in Kind:
            if kind in self._counts:
                ids = ", ".join(map(str, self._first[kind]))
                more = ", ..." if self._counts[kind] > len(self._first[kind]) else ""
                parts.append(f"{kind.action} {self._counts[kind]} {kind.what} ({kind.subject} {ids}{more})")
        return f"{path.name}: {'; '.join(parts)}"

    def report(self) -> list[dict[str, Any]]:
        """Return one JSON-serialisable entry per kind."""
        return [
            {
                "kind": kind.name.lower(),
                "action": kind.action,
                "what": kind.what,
                "count": self._counts[kind],
                f"first {kind.subject} ids": self._first[kind],
            }
            for kind in Kind
            if kind in self._counts
        ]
