"""Backbones that know objects: their architectures, weight formats, registry, checkpoints and publishing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loading import load_backbone, load_pyramid

__all__ = ["__version__", "load_backbone", "load_pyramid"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # The console programs import this package for their help texts alone: torch comes with the first network.
    if name in ("load_backbone", "load_pyramid"):
        from . import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
