"""Outline weights from any source, reading no more than necessary."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ..formats.outline import Outline, outline_of, read_outline
from ..plain_resnets import PLAIN_RESNETS
from ..redaction import redact
from . import registry
from .location import RANDOM, locate

if TYPE_CHECKING:
    from ..formats.checkpoint import Weights


def summarise(name: str, arch: str | None = None) -> Outline:
    """Return the outline of the weights that `resolve(name, arch)` loads.

    Raises:
        UserError: as for `resolve`.
    """
    if name != RANDOM and name not in registry.REGISTRY and (arch is None or arch in PLAIN_RESNETS):
        found = read_outline(locate(name))
        if found is not None and arch in (None, found.arch):
            return dataclasses.replace(found, name=redact(name))
    from .resolve import resolve  # imports torch

    return outline_of(resolve(name, arch))


def load_call(weights: Weights | Outline, name: str) -> str:
    """Return the `ccop_hub.load` call that loads the named weights, with their pyramid if any."""
    backbone = f', backbone="{weights.arch}"' if name == RANDOM else ""
    pyramid = ", pyramid=True" if "fpn" in weights.parts else ""
    return f'ccop_hub.load("{name}"{backbone}{pyramid})'
