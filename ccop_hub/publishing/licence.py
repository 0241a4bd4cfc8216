"""Determine the licence of published weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import UserError, one_line

OWN = "apache-2.0"
"""Default licence of weights trained with this project."""

_IDENTIFIER = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


def licence_of(facts: Mapping[str, Any], given: str | None) -> str:
    """Return the SPDX identifier of the licence, in lower case as on the Hub.

    Third-party weights keep their original licence. Weights from a training run, whose facts include its settings, may
    use any licence.

    Args:
        facts: facts of the weights.
        given: licence chosen by the user, if any.

    Raises:
        UserError: the given licence contradicts the original one or is not an SPDX identifier, or none is known.
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
