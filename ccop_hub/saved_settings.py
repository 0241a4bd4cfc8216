"""Settings on disk: `settings.yaml` of a run, written once and compared when the run is resumed."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from .addresses import redact
from .bounded_yaml import read_yaml
from .errors import UserError
from .files import make_folder, write_atomically

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
"""Settings under the names that earlier versions wrote -> their names today."""

RENAMED_PRECISIONS = {"32-true": "float32", "bf16-mixed": "bf16", "16-mixed": "fp16"}
"""Values of `precision` that earlier versions wrote -> those of today."""


def save_settings(settings: Any, path: Path) -> None:
    """Write a settings dataclass as YAML, nested dataclasses as nested mappings, paths as strings."""
    make_folder(path.parent)
    write_atomically(path, yaml.safe_dump(plain(settings), sort_keys=False, allow_unicode=True))


def plain(value: Any) -> Any:
    """A settings value as plain containers, strings and numbers, ready for YAML or JSON."""
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
    # Settings are saved and shown: the password or token of an address must not be.
    return redact(value) if isinstance(value, str) else value


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a file under today's names, whatever version wrote it.

    Raises:
        UserError: it cannot be read, or is not a mapping of settings.
    """
    content, _ = read_yaml(path, "restore it, or start over with --overwrite")
    if not isinstance(content, dict):
        raise UserError(f"{path} contains no settings: restore it, or start over with --overwrite")
    return in_current_names(content)


def in_current_names(settings: dict[Any, Any]) -> dict[str, Any]:
    """The same settings under today's names; a name of today goes before an old one."""
    renamed = {RENAMED.get(str(name), str(name)): value for name, value in settings.items() if str(name) in RENAMED}
    kept = {str(name): value for name, value in settings.items() if str(name) not in RENAMED}
    current = {**renamed, **kept}
    precision = current.get("precision")
    if isinstance(precision, str):
        current["precision"] = RENAMED_PRECISIONS.get(precision, precision)
    return current


def differences(before: dict[str, Any], settings: Any, may_differ: Collection[str]) -> list[str]:
    """Settings in which a saved run is another one than `settings` describe, as `name (OLD there, NEW now)`.

    A setting that the file does not have yet counts as its default: the run was started when that was the only way.

    Args:
        before: as `read_settings` returns them.
        settings: dataclass of today.
        may_differ: names that say where or how fast a run computes, not what.
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
    try:  # the same folder by another path
        return Path(then).expanduser().samefile(Path(now).expanduser())
    except OSError:
        return False
