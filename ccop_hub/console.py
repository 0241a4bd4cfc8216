"""What the three console programs share: sub-commands from typed settings, one-line errors, settings on disk.

Each sub-command is a `Command`: a dataclass of settings whose docstring is the help text, and the function that runs
it. A named setting (`--setting`), then YAML files (`--config`) and flags in the order of the command line override the
dataclass's defaults. Dashes and underscores are the same in a flag's name; a switch needs no value (`--dry-run`), and a
flag that takes a list or a tuple takes all values behind it (`--merge A B`), numbers also in one word (`--box 1,2,3`).
"""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import re
import sys
import typing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .stopping import Stopped

if TYPE_CHECKING:
    from rich.console import Console

EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141
"""128 plus the number of the signal (SIGINT, SIGPIPE), as a shell reports them."""


_PIPE_WIDTH = 400


@dataclasses.dataclass(frozen=True)
class Command:
    """One sub-command of a console program.

    Attributes:
        name: the word on the command line.
        help: one line for the program's `--help`.
        settings: dataclass; its fields become flags, its Google-style docstring their help (with units).
        run: called with the settings; may return an exit code (None means 0).
        positional: fields that are given by position rather than by flag. A `list[...]` field takes one or more values;
            a field with a default may be left out.
        named_settings: folder of `NAME.yaml` files that `--setting NAME` reads, if the command has any.
    """

    name: str
    help: str
    settings: type[Any]
    run: Callable[[Any], int | None]
    positional: tuple[str, ...] = ()
    named_settings: Path | None = None

    def setting_names(self) -> list[str]:
        """Names that `--setting` takes, sorted."""
        return sorted(path.stem for path in self.named_settings.glob("*.yaml")) if self.named_settings else []


def run_program(program: str, description: str, commands: Sequence[Command], argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run the chosen command and return the exit code.

    A `UserError` or a wrong flag prints one line on standard error and returns 2; a missing optional package prints
    the extra that brings it; a full disk returns 2, an interrupt 130, a reader that has had enough (`... | head`) 141.
    Any other exception is a defect of ours and shows its traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be UTF-8, nor terminals Unicode
    # timm and torchvision still script some functions when they are imported; no user of the programs can mend that.
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
    try:
        name, settings = _parse(program, description, commands, arguments)
        command = next(command for command in commands if command.name == name)
        code = command.run(settings) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except ModuleNotFoundError as error:
        extra = _extra_for(program)
        if extra is None or (error.name or "").startswith("ccop_"):
            raise
        print(f"{program}: needs the package {error.name!r}: pip install 'ccop-hub[{extra}]'", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except Stopped as stopped:
        print(f"{program}: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        if error.errno == errno.ENOSPC:
            print(f"{program}: no space left on the disk: {error.filename or 'free some and go on'}", file=sys.stderr)
            return EXIT_WRONG_INPUT
        if not isinstance(error, BrokenPipeError):
            raise
        # What is still in the buffer has nowhere to go; without this, Python would complain of it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD


def table_console() -> Console:
    """A console that loses no number: a terminal folds wide tables, a pipe or file gets them at their full width."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def _extra_for(program: str) -> str | None:
    return {"ccop-hub": "hub", "ccop-pretrain": "pretrain", "ccop-eval": "eval"}.get(program)


def _parse(program: str, description: str, commands: Sequence[Command], argv: list[str]) -> tuple[str, Any]:
    # jsonargparse is needed by the programs alone: who only loads weights never pays for it.
    from jsonargparse import ArgumentError, ArgumentParser

    class Parser(ArgumentParser):
        def format_help(self, *args: Any, **options: Any) -> str:
            # Flags are shown as people type them; `_in_full` gives the parser the fields' own names.
            return re.sub(r"--\w[\w.]*", lambda flag: flag[0].replace("_", "-"), super().format_help(*args, **options))

    parser = Parser(prog=program, description=description, exit_on_error=False)
    subcommands = parser.add_subcommands(required=True, dest="command")
    for command in commands:
        sub = Parser(exit_on_error=False, description=command.help)
        sub.add_argument("--config", action="config", help="YAML file of settings; later flags override it")
        names = command.setting_names()
        if names:
            sub.add_argument("--setting", choices=names, help="a named setting, read before every other flag")
        hints = {field.name: field for field in dataclasses.fields(command.settings)}
        described = _field_help(command.settings)
        for name in command.positional:
            sub.add_argument(name, help=described.get(name), **_positional_options(hints[name]))
        sub.add_class_arguments(command.settings, skip=set(command.positional))
        subcommands.add_subcommand(command.name, sub, help=command.help)
    try:
        chosen = parser.instantiate(parser.parse_args(_in_full(commands, argv)))
    except ArgumentError as error:
        raise UserError(_explained(str(error), program, commands, argv)) from None
    values = dict(chosen[chosen["command"]])
    by_name = next(command for command in commands if command.name == chosen["command"])
    fields = {field.name for field in dataclasses.fields(by_name.settings)}
    return by_name.name, by_name.settings(**{key: value for key, value in values.items() if key in fields})


def _positional_options(field: dataclasses.Field[Any]) -> dict[str, Any]:
    kind = str if "str" in str(field.type) else Path
    if "list" in str(field.type):
        return {"type": kind, "nargs": "+"}
    if field.default is dataclasses.MISSING:
        return {"type": kind}
    return {"type": kind, "nargs": "?", "default": field.default}


def _explained(message: str, program: str, commands: Sequence[Command], argv: list[str]) -> str:
    """The parser's message in the words of the command line, and where the help is."""
    command = next((command for command in commands if argv and command.name == argv[0]), None)
    message = message.rstrip(".")
    if command is None:
        return f"{message} (see `{program} --help`)"
    positional = "|".join(command.positional) or "$^"
    message = re.sub(rf"\b{command.name}\.({positional})\b", lambda found: found[1].upper(), message)
    message = re.sub(rf"\b{command.name}\.([\w.]+)", r"--\1", message)
    message = re.sub(r'Parser key "([\w.]+)":', r"--\1:", message)
    message = re.sub(r"--[\w.]+", lambda flag: flag[0].replace("_", "-"), message)
    lists = _list_flags(command.settings)
    taking = next((word for word in argv if word.startswith("--") and _flag_name(word) in lists), None)
    if taking is not None and re.search(r"required: [A-Z]", message):
        message += f"; {taking} takes all that stands behind it, so put {command.positional[0].upper()} before it"
    return f"{_plain_types(message)} (see `{program} {command.name} --help`)"


def _plain_types(message: str) -> str:
    """The parser's message with types as words: `Expected int. Got value: big`."""
    message = re.sub(r"(?:\ba )?<class '(?:\w+\.)*(\w+)'>", r"\1", message)
    message = re.sub(r"(?:\ba )?typing\.Literal\[([^]]*)\]", r"one of \1", message)
    union = re.search(
        r"Does not validate against any of the Union subtypes\s+Subtypes: \[(.*)\]$", message, re.MULTILINE
    )
    value = re.search(r"Given value: (.*)\Z", message, re.DOTALL)
    if union and value:
        found = re.findall(r"one of [^,]+(?:, '[^']*')*|\w+\[[^]]*\]|\w+", union[1])
        kinds = " or ".join(kind for kind in found if kind != "NoneType")
        message = f"{message[: union.start()]}Expected {kinds}. Got value: {value[1]}"
    message = re.sub(
        r"\btuple\[([^]]*)\]", lambda kind: f"{len(kind[1].split(', '))} x {kind[1].split(', ')[0]}", message
    )
    return re.sub(r"\blist\[(\w+)\]", r"one or more \1", message)


def _in_full(commands: Sequence[Command], argv: list[str]) -> list[str]:
    """The arguments as the parser takes them: underscores in names, a value behind each switch, settings as files."""
    command = next((command for command in commands if argv and command.name == argv[0]), None)
    if command is None:
        return argv
    switches = set(_switches(command.settings))
    argv, words = _gather_lists(argv, _list_flags(command.settings)), []
    for index, word in enumerate(argv):
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            word = f"--{name[2:].replace('-', '_')}{equals}{value}"
            following = argv[index + 1].lower() if index + 1 < len(argv) else ""
            if not equals and word[2:] in switches and following not in ("true", "false", "yes", "no"):
                word += "=true"
        words.append(word)
    return _expand_named_setting(command, words)


def _list_flags(settings: type[Any], prefix: str = "") -> dict[str, bool]:
    """Names of the fields that hold a list or a tuple, or one or nothing -> whether its items are numbers.

    Those of nested settings have their path before them.
    """
    flags: dict[str, bool] = {}
    for name, kind in typing.get_type_hints(settings).items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            flags |= _list_flags(kind, f"{prefix}{name}.")
        for choice in (kind, *typing.get_args(kind)):
            if typing.get_origin(choice) in (list, tuple):
                flags[prefix + name] = set(typing.get_args(choice)) <= {int, float}
    return flags


def _flag_name(word: str) -> str:
    return word.removeprefix("--").partition("=")[0].replace("-", "_")


def _gather_lists(argv: list[str], lists: dict[str, bool]) -> list[str]:
    """The arguments with the values behind each list flag as one value, in JSON."""
    words: list[str] = []
    values: list[str] | None = None
    numbers = False
    for word in [*argv, "--"]:
        if values is not None and not word.startswith("--"):
            values.append(word)
            continue
        words += _as_list(values or [], numbers)
        values = [] if word.startswith("--") and "=" not in word and _flag_name(word) in lists else None
        numbers = lists.get(_flag_name(word), False)
        words.append(word)
    return words[:-1]


def _as_list(values: list[str], numbers: bool) -> list[str]:
    """Values of a list flag as one word; what is a list or `null` already stays as it is."""
    if not values or values == ["null"] or values[0].startswith("["):
        return values
    return [json.dumps([part for value in values for part in value.split(",") if part] if numbers else values)]


def _switches(settings: type[Any], prefix: str = "") -> list[str]:
    """Names of the boolean fields, those of nested settings with their path."""
    names = []
    for name, kind in typing.get_type_hints(settings).items():
        if kind is bool:
            names.append(prefix + name)
        elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
            names += _switches(kind, f"{prefix}{name}.")
    return names


def _expand_named_setting(command: Command, argv: list[str]) -> list[str]:
    """Put the file of `--setting NAME` in front of the command's own flags, so that any flag overrides it."""
    if command.named_settings is None:
        return argv
    for index, word in enumerate(argv):
        name = word.removeprefix("--setting=") if word.startswith("--setting=") else None
        if word == "--setting" and index + 1 < len(argv):
            name = argv[index + 1]
        if name in command.setting_names():
            return [argv[0], "--config", str(command.named_settings / f"{name}.yaml"), *argv[1:]]
    return argv


def _field_help(settings: type[Any]) -> dict[str, str]:
    """The lines of a Google-style `Args:` section, by field name."""
    from docstring_parser import parse

    entries = parse(settings.__doc__ or "").params
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in entries}
