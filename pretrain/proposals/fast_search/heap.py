"""A binary heap of int64 keys and items in two growing arrays: the highest key first or, if equal, the highest item."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compilation import inlined


@inlined
def precedes(key: Any, item: Any, i: Any, j: Any) -> Any:
    """Whether entry i comes before entry j."""
    return key[i] > key[j] or (key[i] == key[j] and item[i] > item[j])


@inlined
def swap(key: Any, item: Any, i: Any, j: Any) -> None:
    """Swap two entries."""
    key[i], key[j] = key[j], key[i]
    item[i], item[j] = item[j], item[i]


@inlined
def pushed(key: Any, item: Any, count: Any, new_key: Any, new_item: Any) -> Any:
    """Add an entry to a heap of `count` entries; return both arrays, which are new ones if the old ones were full."""
    key, item = grown(key, count + 1), grown(item, count + 1)
    key[count], item[count] = new_key, new_item
    i = count
    while i > 0 and precedes(key, item, i, (i - 1) >> 1):
        swap(key, item, i, (i - 1) >> 1)
        i = (i - 1) >> 1
    return key, item


@inlined
def remove_first(key: Any, item: Any, count: Any) -> Any:
    """Pop the first of `count` entries, move it behind the shortened heap, and return its item."""
    count -= 1
    swap(key, item, 0, count)
    i = 0
    while 2 * i + 1 < count:
        child = 2 * i + 1
        if child + 1 < count and precedes(key, item, child + 1, child):
            child += 1
        if not precedes(key, item, child, i):
            break
        swap(key, item, i, child)
        i = child
    return item[count]


@inlined
def grown(array: Any, needed: Any) -> Any:
    """Return the array, or a copy with twice the required size if it is too small."""
    if needed <= len(array):
        return array
    larger = np.empty(2 * needed, array.dtype)
    larger[: len(array)] = array
    return larger
