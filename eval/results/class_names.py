"""Readable names of classes, for pictures and plots; results keep the names of the data."""

from __future__ import annotations

import functools
import re
from typing import Any

_SYNSET = re.compile(r"n\d{8}")


def shown_class(name: str) -> str:
    """Return the word for an ImageNet class that is named by its WordNet id, and other names as they are.

    Args:
        name: name of a class in the data, such as `n01443537` or `goldfish`.

    Returns:
        `goldfish` for both; ids that timm's tables lack are returned unchanged.
    """
    if not _SYNSET.fullmatch(name):
        return name
    try:
        return str(_info().label_name_to_description(name)).partition(",")[0]
    except KeyError:
        return name


@functools.cache
def _info() -> Any:
    from timm.data import ImageNetInfo  # slow to import

    return ImageNetInfo()
