"""The commands of a console program."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any


def version() -> str:
    """Return the version of the installed distribution, shared by all programs."""
    from importlib import metadata

    return metadata.version("ccop-hub")


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of a console program.

    Attributes:
        name: name on the command line.
        help: one line for the program's `--help`.
        settings: frozen dataclass derived from `ccop_hub.validation.Validated`. Its fields become flags; the `Args` of
            its docstring become their help.
        run: takes the settings and returns the result.
        positional: fields that may also be given by position. A list takes one or more values.
        common: fields shown by `--help`, in addition to those without a default; `--help-all` shows all of them.
        named_settings: folder of the `NAME.yaml` files that `--setting NAME` reads, if any. The comment on a file's
            first line, up to a full stop, is its description in the help.
        show: prints the result and may return an exit code. Without it, an integer result is the exit code.
        document: converts the result to JSON values; enables `--json`.
        code: computes the exit code from the result under `--json`.
        takes_long: whether the command may take more than some seconds; it then says so before it imports its packages.
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
    takes_long: bool = False

    def setting_names(self) -> list[str]:
        """Return the names that `--setting` accepts, sorted."""
        return sorted(path.stem for path in self.named_settings.glob("*.yaml")) if self.named_settings else []

    def introduction(self) -> str:
        """Return the description of the settings class, without its arguments."""
        return inspect.cleandoc(self.settings.__doc__ or self.help).partition("\n\nArgs:")[0]

    def setting_help(self) -> str:
        """Return the help of `--setting`, with the description of each name."""
        described = (f"`{name}`{self._setting_description(name)}" for name in self.setting_names())
        return f"Named settings to start from: {', '.join(described)}."

    def _setting_description(self, name: str) -> str:
        assert self.named_settings is not None
        with (self.named_settings / f"{name}.yaml").open(encoding="utf-8") as file:
            first = file.readline()
        text = first.lstrip("# ").partition(". ")[0].strip().removesuffix(".")
        return f" ({text})" if first.startswith("#") else ""

    def required(self) -> list[str]:
        """Return the fields without a default."""
        nothing = dataclasses.MISSING
        fields = dataclasses.fields(self.settings)
        return [field.name for field in fields if field.default is nothing and field.default_factory is nothing]

    def shown_first(self) -> set[str]:
        """Return the fields that `--help` shows: all of them if `common` is empty."""
        if not self.common:
            return {field.name for field in dataclasses.fields(self.settings)}
        return {*self.common, *self.positional, *self.required()}
