"""Save the settings of a run to `settings.yaml`, and compare them when the run resumes."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import make_folder, write_atomically
from .redaction import redact

RENAMED = {
    "arch": "backbone",
    "gpus": "devices",
    "num_machines": "num_nodes",
    "machine_rank": "node_rank",
    "checkpoint_every": "save_every",
    "checkpoint_period": "save_every",
    "eval_period": "evaluate_every",
    "device": "accelerator",
    "jobs": "workers",
}
"""Former name of a setting -> current name."""

RENAMED_PRECISIONS = {"32-true": "float32", "bf16-mixed": "bf16", "16-mixed": "fp16"}
"""Former value of `precision` -> current value."""


def save_settings(settings: Any, path: Path) -> None:
    """Write a settings dataclass as YAML, with nested dataclasses as mappings and paths as strings."""
    from .bounded_yaml import dump_yaml

    make_folder(path.parent)
    write_atomically(path, dump_yaml(plain(settings)))


def plain(value: Any) -> Any:
    """Convert a settings value to plain containers, strings and numbers for YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    # Settings are saved and shown, so strip passwords and tokens from URLs.
    return redact(value) if isinstance(value, str) else value


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings written by any version, under their current names.

    Raises:
        UserError: the file is unreadable or not a mapping of settings.
    """
    from .bounded_yaml import read_yaml

    content, _ = read_yaml(path, "restore it, or start over with --overwrite")
    if not isinstance(content, dict):
        raise UserError(f"{path} contains no settings: restore it, or start over with --overwrite")
    return in_current_names(content)


def in_current_names(settings: dict[Any, Any]) -> dict[str, Any]:
    """Rename settings to their current names; the current name wins if both are present."""
    renamed = {RENAMED.get(str(name), str(name)): value for name, value in settings.items() if str(name) in RENAMED}
    kept = {str(name): value for name, value in settings.items() if str(name) not in RENAMED}
    current = {**renamed, **kept}
    precision = current.get("precision")
    if isinstance(precision, str):
        current["precision"] = RENAMED_PRECISIONS.get(precision, precision)
    return current


def differences(before: dict[str, Any], settings: Any, may_differ: Collection[str]) -> list[str]:
    """List the settings that differ from those of a saved run, as `name (OLD there, NEW now)`.

    Settings missing from the file are compared as their defaults: the run predates them.

    Args:
        before: saved settings, as returned by `read_settings`.
        settings: current settings dataclass.
        may_differ: names to ignore, since they affect where or how fast a run computes, but not its results.
    """
    changed = []
    for field in dataclasses.fields(settings):
        now = plain(getattr(settings, field.name))
        then = before.get(field.name, plain(_default(field)))
        if field.name not in may_differ and not _is_same(then, now):
            changed.append(f"{field.name} ({then} there, {now} now)")
    return changed


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _is_same(then: Any, now: Any) -> bool:
    if then == now:
        return True
    if not (isinstance(then, str) and isinstance(now, str)):
        return False
    try:  # different paths may lead to the same folder
        return Path(then).expanduser().samefile(Path(now).expanduser())
    except (OSError, ValueError):  # the text may be no path at all
        return False
