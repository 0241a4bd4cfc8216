"""Import the installed Detectron2 and describe it.

It may be an official installation (compiled or not), official sources on the import path, or v0.6 from PyPI (see
`install`). Only v0.6 needs patches to run with current packages; they are applied in memory at import and never change
an installed file.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any, NoReturn

import PIL.Image

from ccop_hub.errors import UserError

from ..results.result import Engine

DISTRIBUTION = "pb1-detectron2"
"""PyPI name of the Detectron2 v0.6 distribution."""

_OPERATORS = "detectron2._C"

_REGISTRY, _OFFICIAL = "registry", "official"


def load_engine() -> Engine:
    """Import Detectron2, applying the patches that its version needs, and describe it.

    Raises:
        UserError: Detectron2 is not installed.
    """
    if importlib.util.find_spec("detectron2") is None:
        raise UserError("Detectron2 is not installed: run `ccop-eval install-detectron2`")
    # Pillow 10 removed this alias of BILINEAR; official main no longer uses it.
    if not hasattr(PIL.Image, "LINEAR"):
        PIL.Image.LINEAR = PIL.Image.Resampling.BILINEAR  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        # Detectron2's import triggers deprecation warnings (torch.jit.script) that users cannot act on.
        warnings.simplefilter("ignore")
        _import_layers()
        importlib.import_module("detectron2.engine")
    return describe_engine()


def _import_layers() -> None:
    try:
        importlib.import_module("detectron2.layers")
    except ImportError as error:
        # v0.6 imports its compiled operators in every layer that may use them; main imports them on use.
        if "_C" not in str(error):
            raise
        _stand_in_for_operators()
        importlib.import_module("detectron2.layers")


def describe_engine() -> Engine:
    """Describe the imported Detectron2: version, origin, compiled or not.

    Official main also reports version 0.6, so the version includes the commit, or a digest of the Python files if the
    commit is unknown. The PyPI distribution's version includes neither.
    """
    detectron2 = importlib.import_module("detectron2")
    operators = sys.modules.get(_OPERATORS)
    if operators is None and importlib.util.find_spec(_OPERATORS) is not None:
        # Operators compiled for another torch fail to load and count as missing.
        with contextlib.suppress(ImportError):
            operators = importlib.import_module(_OPERATORS)
    package = Path(str(detectron2.__file__)).parent
    where, commit = _origin(package)
    version = str(detectron2.__version__)
    if where == _REGISTRY:
        where = f"{_REGISTRY} ({DISTRIBUTION} {importlib.metadata.version(DISTRIBUTION)})"
    else:
        version = f"{version}+{commit[:7] if commit else _checked_out(package) or _digest(package)}"
    return Engine(
        name="detectron2",
        version=version,
        where=where,
        compiled=operators is not None and hasattr(operators, "__file__"),
    )


def _origin(package: Path) -> tuple[str, str | None]:
    """Return where the package was installed from, and its commit if pip recorded it."""
    for name in ("detectron2", DISTRIBUTION):
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        direct: dict[str, Any] = json.loads(distribution.read_text("direct_url.json") or "{}")
        editable = direct.get("dir_info", {}).get("editable", False)
        if not editable and Path(str(distribution.locate_file("detectron2"))).resolve() != package.resolve():
            continue
        return (_REGISTRY, None) if name == DISTRIBUTION else (_OFFICIAL, direct.get("vcs_info", {}).get("commit_id"))
    return f"{_OFFICIAL} sources on the import path", None


def _checked_out(package: Path) -> str | None:
    """Commit of the git checkout containing the package, with `-dirty` if files are modified; None if not in one."""
    root = package.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _digest(package: Path) -> str:
    """Abbreviated SHA-256 of the names and contents of the package's Python files."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"sha256.{digest.hexdigest()[:12]}"


def _stand_in_for_operators() -> None:
    """Replace the compiled operators with a module that raises a `UserError` when one is called."""

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
