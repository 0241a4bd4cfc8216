"""A sequence of strings stored in two arrays, to hold a million paths without a million Python objects.

A list takes twice the memory, plus more in every forked data loader worker: updating a string's reference count writes
to its memory page, which is then no longer shared.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

_ENCODING = "utf-8"
_ERRORS = "surrogateescape"  # file names may not be valid UTF-8
_DECODED_AT_ONCE = 4096


class PackedStrings(Sequence[str]):
    """An immutable sequence of strings.

    Args:
        strings: strings to store, in order.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [string.encode(_ENCODING, _ERRORS) for string in strings]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._bytes = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(len(self)))]
        index = place + len(self) if place < 0 else place
        if not 0 <= index < len(self):
            raise IndexError(place)
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode(_ENCODING, _ERRORS)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _DECODED_AT_ONCE):
            ends = self._ends[start : start + _DECODED_AT_ONCE + 1].tolist()
            for begin, end in itertools.pairwise(ends):
                yield self._bytes[begin:end].decode(_ENCODING, _ERRORS)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedStrings):
            return self._bytes == other._bytes and bool(np.array_equal(self._ends, other._ends))
        if isinstance(other, list):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def find(self, string: str) -> int | None:
        """Return the index of a string, or None if absent; the sequence must be sorted and unique."""
        place = bisect_left(self, string)
        return place if place < len(self) and self[place] == string else None
