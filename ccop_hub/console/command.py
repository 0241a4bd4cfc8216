"""What a console program is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any


def version() -> str:
    """Version of the installed distribution, which all programs share."""
    from importlib import metadata

    return metadata.version("ccop-hub")


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of a console program.

    Attributes:
        name: the word on the command line.
        help: one line for the program's `--help`.
        settings: frozen dataclass derived from `ccop_hub.validation.Validated`; its fields become flags, the `Args` of
            its docstrings their help (with units).
        run: called with the settings; returns what came of it.
        positional: fields that may also be given by position. A list takes one or more values.
        common: fields that `--help` shows; the others appear only in `--help-all`. Fields without a default are always
            among them.
        named_settings: folder of `NAME.yaml` files that `--setting NAME` reads, if the command has any.
        show: prints what came of it; may return an exit code. Without it, an integer that `run` returns is the exit
            code.
        document: what came of it as values for JSON; with it, the command takes `--json`.
        code: exit code of what came of it under `--json`.
    """

    name: str
    help: str
    settings: type[Any]
    run: Callable[[Any], Any]
    positional: tuple[str, ...] = ()
    common: tuple[str, ...] = ()
    named_settings: Path | None = None
    show: Callable[[Any, Any], int | None] | None = None
    document: Callable[[Any, Any], Any] | None = None
    code: Callable[[Any], int] = lambda _: 0

    def setting_names(self) -> list[str]:
        """Names that `--setting` takes, sorted."""
        return sorted(path.stem for path in self.named_settings.glob("*.yaml")) if self.named_settings else []

    def required(self) -> list[str]:
        """Fields without a default."""
        nothing = dataclasses.MISSING
        fields = dataclasses.fields(self.settings)
        return [field.name for field in fields if field.default is nothing and field.default_factory is nothing]

    def shown_first(self) -> set[str]:
        """Fields that `--help` shows; all of them where none was chosen."""
        if not self.common:
            return {field.name for field in dataclasses.fields(self.settings)}
        return {*self.common, *self.positional, *self.required()}
