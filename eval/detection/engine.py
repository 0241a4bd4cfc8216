"""Detectron2 as the detection engine: import whichever is installed, and say which it is.

Three kinds are served alike: an official installation (compiled or not), official sources on the import path, and the
registry's v0.6 (see `install`). Only v0.6 needs help on today's stack, and gets it at import, in memory; no file of an
installation is ever changed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any, NoReturn

import PIL.Image

from ccop_hub.errors import UserError

from ..results import Engine
from .install import DISTRIBUTION

_OPERATORS = "detectron2._C"


def load_engine() -> Engine:
    """Import Detectron2, with the stand-ins that its version needs, and describe it.

    Raises:
        UserError: Detectron2 is not installed.
    """
    if importlib.util.find_spec("detectron2") is None:
        raise UserError("Detectron2 is not installed: run `ccop-eval install-detectron2`")
    # Pillow 10 removed the name, which meant the same filter; official main did away with it too.
    if not hasattr(PIL.Image, "LINEAR"):
        PIL.Image.LINEAR = PIL.Image.Resampling.BILINEAR  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        # Deprecations that Detectron2's own code runs into at import (torch.jit.script) tell the user nothing.
        warnings.simplefilter("ignore")
        _import_layers()
        importlib.import_module("detectron2.engine")
    return describe_engine()


def _import_layers() -> None:
    try:
        importlib.import_module("detectron2.layers")
    except ImportError as error:
        # v0.6 imports its operators wherever a layer could use one; official main does so only where they are used.
        if "_C" not in str(error):
            raise
        _stand_in_for_operators()
        importlib.import_module("detectron2.layers")


def describe_engine() -> Engine:
    """Version, origin and kind of the imported Detectron2.

    Official main calls itself 0.6 as well, so that the commit, where pip knows it, is part of the version.
    """
    detectron2 = importlib.import_module("detectron2")
    operators = sys.modules.get(_OPERATORS)
    if operators is None and importlib.util.find_spec(_OPERATORS) is not None:
        operators = importlib.import_module(_OPERATORS)
    where, commit = _origin(Path(str(detectron2.__file__)))
    version = f"{detectron2.__version__}+{commit[:7]}" if commit else str(detectron2.__version__)
    return Engine(
        name="detectron2",
        version=version,
        where=where,
        compiled=operators is not None and hasattr(operators, "__file__"),
    )


def _origin(package: Path) -> tuple[str, str | None]:
    """How the imported package came onto the machine, and its commit where that is on record."""
    for name in ("detectron2", DISTRIBUTION):
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        direct: dict[str, Any] = json.loads(distribution.read_text("direct_url.json") or "{}")
        editable = direct.get("dir_info", {}).get("editable", False)
        if (
            not editable
            and Path(str(distribution.locate_file("detectron2/__init__.py"))).resolve() != package.resolve()
        ):
            continue
        if name == DISTRIBUTION:
            return f"registry ({DISTRIBUTION} {distribution.version})", None
        return "official", direct.get("vcs_info", {}).get("commit_id")
    return "official sources on the import path", None


def _stand_in_for_operators() -> None:
    """Put a module in the place of the compiled operators that says so when one is called."""

    def absent(name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UserError(
            f"this Detectron2 has no compiled operator {name}: Mask R-CNN needs none; for other models install "
            "Detectron2 from its official repository with a compiler"
        )

    module = types.ModuleType(_OPERATORS)
    module.__getattr__ = absent  # type: ignore[method-assign]
    sys.modules[_OPERATORS] = module
    setattr(importlib.import_module("detectron2"), "_C", module)  # noqa: B010 - a name that mypy cannot know
