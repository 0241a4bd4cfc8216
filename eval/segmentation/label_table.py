"""Map label ids to classes, and check that the labels match the classes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ccop_hub.errors import UserError
from ccop_hub.regular_files import read_text

IGNORED = 255
"""Class index and label id of pixels excluded from training and scoring (as in Cityscapes)."""

_SHOWN = 12
"""Maximum number of values or names that an error message lists."""


@dataclass(frozen=True)
class LabelTable:
    """Mapping between label ids and classes.

    Attributes:
        classes: class names, by class index.
        ids: label id of each class index.
        colours: (classes, 3) uint8 RGB, if the data set defines them.
        mapping: value in a label file -> label id, for values that differ from their id.
    """

    classes: list[str]
    ids: list[int]
    colours: np.ndarray | None = None
    mapping: Mapping[int, int] = field(default_factory=dict)

    def lookup(self) -> np.ndarray:
        """(256,) uint8: value in a label file -> class index, `IGNORED` for every value without a class."""
        indices = {label: index for index, label in enumerate(self.ids)}
        found = [indices.get(self.mapping.get(value, value), IGNORED) for value in range(256)]
        return np.array(found, dtype=np.uint8)


def parse_label_map(pairs: Iterable[str]) -> dict[int, int]:
    """Parse `["255:1"]` to `{255: 1}`: value in a label file -> label id.

    Raises:
        UserError: a pair is not two ids in 0-255, or a value occurs twice.
    """
    mapping: dict[int, int] = {}
    for pair in pairs:
        match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", pair.strip())
        value, label = (int(group) for group in match.groups()) if match else (-1, -1)
        if not 0 <= value <= 255 or not 0 <= label <= 255:
            raise UserError(f"--label-map {pair}: give VALUE:ID, both 0 to 255, such as --label-map 255:1")
        if value in mapping:
            raise UserError(f"--label-map maps {value} twice: give each value one id")
        mapping[value] = label
    return mapping


def make_table(
    names: Path, present: Mapping[Path, Sequence[int]], ignore: Sequence[int], mapping: Mapping[int, int]
) -> LabelTable:
    """Make the table from `classes.txt` if it exists, else with one class per label id that occurs.

    Args:
        names: `classes.txt`, which may be missing.
        present: label file -> values in it.
        ignore: label ids to ignore.
        mapping: value in a label file -> label id.

    Raises:
        UserError: the labels contain fewer than two classes, or a class that is not in `classes.txt`, or lack one that
            is. The usual cause is masks of 0 and 255: 255 is ignored unless it is mapped.
    """
    values = sorted({value for found in present.values() for value in found})
    ids = sorted({mapping.get(value, value) for value in values} - {IGNORED, *ignore})
    folder = next(iter(present)).parent
    held = f"the labels, such as those in {folder}, hold the values {_some(values)}"
    if not os.path.lexists(names):
        _require_two(ids, values, held, mapping)
        return LabelTable([f"class {value}" for value in ids], ids, mapping=mapping)
    listed = read_names(names)
    unnamed = next((value for value in ids if value >= len(listed)), None)
    if unnamed is not None:
        file = next(file for file, found in present.items() if unnamed in [mapping.get(v, v) for v in found])
        raise UserError(
            f"{file} has id {unnamed}, but {names} names {len(listed)} classes (ids 0 to {len(listed) - 1}): name it, "
            f"map its value with --label-map VALUE:ID, or pass --ignore {unnamed}"
        )
    _require_two(ids, values, held, mapping)
    kept = [value for value in range(len(listed)) if value not in ignore]
    absent = [value for value in kept if value not in ids]
    if absent:
        named = _some([f"{listed[value]!r} (id {value})" for value in absent])
        left_out = " ".join(map(str, absent[:_SHOWN]))
        raise UserError(
            f"{names} names {named}, which no label shows; {held}: map values to ids with --label-map "
            f"{_example(values, ids)}, or leave the classes out with --ignore {left_out}"
        )
    return LabelTable([listed[value] for value in kept], kept, mapping=mapping)


def read_names(file: Path) -> list[str]:
    """Read class names, one per line, in order of label id.

    Raises:
        UserError: the file is unreadable, or a name occurs twice.
    """
    try:
        names = [line.strip() for line in read_text(file).split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {file} ({reason}): give one class name per line, as UTF-8") from None
    if not names:
        raise UserError(f"{file} names no class: give one class name per line, or remove the file")
    if len(names) > IGNORED + 1:
        raise UserError(f"{file} names {len(names)} classes: label images have at most {IGNORED + 1}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{file} lists {twice[0]!r} twice: give each class a unique name")
    return names


def _require_two(ids: Sequence[int], values: Sequence[int], held: str, mapping: Mapping[int, int]) -> None:
    if len(ids) < 2:
        ignored = f", of which {IGNORED} is ignored" if IGNORED in values and IGNORED not in mapping else ""
        raise UserError(
            f"{held}{ignored}: fewer than two classes are left; map values to class ids with --label-map "
            f"{_example(values, ids)}, or ignore fewer"
        )


def _example(values: Sequence[int], ids: Sequence[int]) -> str:
    """The mapping that the user probably needs: the largest value to the first unused id."""
    free = next(label for label in range(256) if label not in ids)
    return f"{max(values)}:{free}"


def _some(items: Sequence[object]) -> str:
    more = ", ..." if len(items) > _SHOWN else ""
    return ", ".join(map(str, items[:_SHOWN])) + more
