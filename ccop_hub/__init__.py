"""Load, describe, convert, verify and publish backbones pre-trained on objects.

>>> import ccop_hub
>>> network = ccop_hub.load("RUN", pyramid=True)
>>> ccop_hub.convert("RUN", to="detectron2", out="model.pkl")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import convert, embed, info, publish, verify
    from .errors import UserError
    from .loading import load
    from .loading import load_backbone as load_backbone
    from .loading import load_pyramid as load_pyramid

__all__ = ["UserError", "__version__", "convert", "embed", "info", "load", "publish", "verify"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Import torch lazily, so that `--help` stays fast.
    if name in ("load", "load_backbone", "load_pyramid"):
        from . import loading

        return getattr(loading, name)
    if name in ("convert", "embed", "info", "publish", "verify"):
        from . import api

        return getattr(api, name)
    if name == "UserError":
        from .errors import UserError

        return UserError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
