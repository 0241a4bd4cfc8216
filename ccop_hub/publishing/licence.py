"""Under which licence weights are published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import UserError, one_line

OWN = "apache-2.0"
"""Licence of weights that were trained here, unless another is given."""

_IDENTIFIER = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


def licence_of(facts: Mapping[str, Any], given: str | None) -> str:
    """The SPDX identifier, in lower case as on the Hub.

    Weights from elsewhere keep the licence of their origin. Those of a run, which have its settings among their facts,
    are ours to license.

    Args:
        facts: of the weights.
        given: by the user.

    Raises:
        UserError: another licence than the origin's, one that is no SPDX identifier, or none is known.
    """
    origin = str(facts.get("licence") or "").lower()
    if not _IDENTIFIER.fullmatch(origin):
        origin = ""
    wanted = (given or "").lower()
    if given is not None and not _IDENTIFIER.fullmatch(wanted):
        raise UserError(f"--licence {one_line(given, 60)!r} is not an SPDX identifier: give one, such as cc-by-nc-4.0")
    if origin and wanted and origin != wanted:
        raise UserError(
            f"these weights are licensed under {origin}, not {wanted}: remove --licence to keep their licence"
        )
    if origin or wanted:
        return origin or wanted
    if facts.get("settings"):
        return OWN
    raise UserError(
        "these weights were not trained with this project and have no licence: pass --licence with the original one"
    )
