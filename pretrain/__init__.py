"""Pre-train backbones on unlabelled images with CCOP or MoCo v2.

>>> import ccop_pretrain
>>> proposals = ccop_pretrain.propose("photos", "proposals")
>>> run = ccop_pretrain.pretrain("photos", "run", proposals="proposals", backbone="resnet18", epochs=200)
>>> run.exported
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import draw_scenes, inspect, plan, pretrain, propose

__all__ = ["draw_scenes", "inspect", "plan", "pretrain", "propose"]


def __getattr__(name: str) -> Any:
    # Load submodules lazily, since the console program imports this package even for `--help`.
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
