"""Parse a command line into a command and its settings.

Cyclopts splits the arguments into flags and values and prints the help. The settings class converts and validates the
values, so that flags, YAML files and Python callers share the same checks.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter, Token

from ..errors import UserError
from ..validation import SettingError, did_you_mean, field_types, flag, without_bounds
from .command import Command, version
from .errors import describe_parse_error
from .reference import SettingReference, setting_references, setting_topics, without_none
from .renamed import in_current_flags

CONFIG, SETTING, JSON = "config", "setting", "json"
"""Flags that are not settings: they choose where settings come from and how the result is printed."""

HELP_ALL = "--help-all"
_NOTHING = ("none", "null")
_TRUTHS = ("true", "false", "yes", "no")
_COMMON = Group("Common", sort_key=0)


@dataclasses.dataclass(frozen=True)
class Invocation:
    """A command with its settings.

    Attributes:
        command: the command.
        settings: an instance of its settings class.
        json: whether to print the result as JSON.
    """

    command: Command
    settings: Any
    json: bool = False


def parse(program: str, description: str, commands: Sequence[Command], words: Sequence[str]) -> Invocation | None:
    """Parse a command line; print the help and return None if it asks for help.

    Raises:
        UserError: a command, flag or value is invalid, or a required setting is missing.
    """
    names = [command.name for command in commands]
    name = next(iter(words), None)
    if name is None:
        raise UserError(f"give a command: {', '.join(names)} (see `{program} --help`)")
    if not name.startswith("-") and name not in names:
        raise UserError(f"there is no command {name!r}{did_you_mean(name, names)} (see `{program} --help`)")
    chosen = next((command for command in commands if command.name == name), None)
    everything = HELP_ALL in words
    words = ["--help" if word == HELP_ALL else word for word in words]
    app, function = build_app(program, description, commands, chosen, everything)
    if chosen is not None:
        current = in_current_flags(program, words[1:], field_types(chosen.settings))
        words = [name, *_with_joined_switches(current, chosen)]
    try:
        called, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        where = f"{program} {name}" if chosen else program
        message = describe_parse_error(error, _flags(chosen) if chosen else ["--help", "--version"])
        raise UserError(f"{message} (see `{where} --help`)") from None
    if chosen is None or called is not function:
        called(*bound.args, **bound.kwargs)
        return None
    given = dict(bound.arguments)
    return Invocation(chosen, _settings(program, chosen, given), bool(given.get(JSON)))


def build_app(
    program: str, description: str, commands: Sequence[Command], chosen: Command | None, everything: bool
) -> tuple[App, Any]:
    """Build the cyclopts app of a program and the placeholder function of the chosen command.

    Args:
        program: name of the program.
        description: help text of the program.
        commands: all commands of the program.
        chosen: command to define flags for; the others are only listed. None defines no flags.
        everything: show all settings in the help, not only the common ones.
    """
    app = App(name=program, help=description, version=version, help_format="plaintext")
    app.help_epilogue = f"Help on a command: {program} COMMAND --help"
    function = None
    for place, command in enumerate(commands):
        if command is not chosen:
            app.command(_function(), name=command.name, help=command.help, sort_key=place)
            continue
        function = _function(_parameters(command, everything))
        app.command(function, name=command.name, help=command.help, sort_key=place)
        sub = app[command.name]
        sub.help = command.introduction()
        sub.help_epilogue = "" if everything else _more(program, command)
    return app, function


def completion_script(
    program: str, description: str, commands: Sequence[Command], shell: Literal["bash", "zsh"]
) -> str:
    """Return a shell script that completes commands, flags, choices and paths."""
    app = App(name=program, help=description, version=version, help_format="plaintext")
    for command in commands:
        app.command(_function(_parameters(command, True)), name=command.name, help=command.help)
    return app.generate_completion(shell=shell)


def _function(parameters: Sequence[inspect.Parameter] = ()) -> Any:
    """Return a placeholder for a command: cyclopts reads its signature, but it is never called."""

    def command(**_: Any) -> None: ...

    command.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
    return command


def _words(_: Any, tokens: Sequence[Token]) -> list[str]:
    """Return several values unconverted; the settings class converts them."""
    return [token.value for token in tokens]


def _word(_: Any, tokens: Sequence[Token]) -> str:
    """Return one value unconverted."""
    return tokens[-1].value


def _parameters(command: Command, everything: bool) -> list[inspect.Parameter]:
    """Return a cyclopts parameter for each setting, in help order."""
    first, settings = command.shown_first(), setting_references(command)
    headings = list(dict.fromkeys(setting_topics(command.settings).values()))
    groups = {topic: Group(topic, sort_key=place) for place, topic in enumerate(headings, start=1)}
    parameters = [
        _parameter(
            setting,
            _COMMON if setting.name in first else groups[setting.topic],
            show=everything or setting.name in first,
        )
        for setting in settings
    ]
    extras = [_extra(CONFIG, list[Path], "YAML file of settings; flags override it.")]
    if command.named_settings is not None:
        extras.append(_extra(SETTING, _choice_of(command.setting_names()), command.setting_help()))
    if command.document is not None:
        extras.append(_extra(JSON, bool, "Print JSON instead of a table."))
    return parameters + extras


def _extra(name: str, kind: Any, text: str) -> inspect.Parameter:
    """Return the parameter of a flag that is not a setting."""
    options: dict[str, Any] = {"help": text, "group": _COMMON, "negative": (), "show_default": False}
    options["allow_repeating"] = True
    if kind is not bool:
        options |= {"converter": _words if kind == list[Path] else _word, "consume_multiple": kind == list[Path]}
        options |= {"metavar": "PATH..." if kind == list[Path] else "NAME", "json_list": False}
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, Parameter(**options)]
    )


def _parameter(setting: SettingReference, group: Group, show: bool) -> inspect.Parameter:
    several = typing.get_origin(setting.kind) in (list, tuple)
    text = setting.help + (" [required]" if setting.required else "")
    text += f" [{setting.range}]" if setting.range else ""
    options: dict[str, Any] = {"help": text, "group": group, "show": show, "allow_repeating": True}
    if setting.kind is bool:
        hint: Any = bool
    else:
        options |= {"converter": _words if several else _word, "consume_multiple": several}
        options |= {"metavar": setting.metavar, "negative": (), "json_list": False}
        hint = _word_type(setting.kind, setting.choices)
    options["show_default"] = setting.default or False
    position = inspect.Parameter.POSITIONAL_OR_KEYWORD if setting.positional else inspect.Parameter.KEYWORD_ONLY
    # The settings class supplies the default, since a YAML file may override it before the flags do.
    return inspect.Parameter(
        setting.name, position, default=None, annotation=Annotated[hint | None, Parameter(**options)]
    )


def _word_type(kind: Any, words: Sequence[str]) -> Any:
    """Return the type that cyclopts sees: just enough to list choices and complete paths."""
    if typing.get_origin(kind) in (list, tuple):
        return list[Path] if Path in typing.get_args(kind) else list[str]
    return Path if kind is Path else _choice_of(words) if words else str


def _choice_of(words: Sequence[str]) -> Any:
    # With `| str`, cyclopts lists and completes the choices without validating them.
    return Literal.__getitem__(tuple(words)) | str


def _more(program: str, command: Command) -> str:
    hidden = len(dataclasses.fields(command.settings)) - len(command.shown_first())
    return f"{hidden} more settings: {program} {command.name} {HELP_ALL}" if hidden > 0 else ""


def _flags(command: Command) -> list[str]:
    extra = [CONFIG, *([SETTING] if command.named_settings else []), *([JSON] if command.document else [])]
    return [flag(name) for name in (*field_types(command.settings), *extra)] + ["--help", HELP_ALL]


def _with_joined_switches(words: Sequence[str], command: Command) -> list[str]:
    """Rewrite `--overwrite true`, the syntax of older versions, as `--overwrite=true`."""
    switches = {flag(name) for name, kind in field_types(command.settings).items() if without_bounds(kind)[0] is bool}
    joined: list[str] = []
    for word in words:
        last = joined[-1].replace("_", "-") if joined else ""
        if last in switches and word.lower() in _TRUTHS:
            joined[-1] = f"{joined[-1]}={word}"
        else:
            joined.append(word)
    return joined


def _settings(program: str, command: Command, given: dict[str, Any]) -> Any:
    """Merge named settings, then files, then flags; later sources override earlier ones."""
    from .config import read_config  # YAML takes time to import

    kinds = field_types(command.settings)
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for file in _config_files(command, given):
        found, where = read_config(program, file, list(kinds))
        values |= {name: [value] if _is_item(kinds[name], value) else value for name, value in found.items()}
        places |= where
    for name, words in given.items():
        if name in kinds:
            values[name] = _value(kinds[name], words)
            places.pop(name, None)
    missing = [name for name in command.required() if name not in values]
    if missing:
        raise UserError(_missing(program, command, missing, given))
    try:
        return command.settings(**values)
    except SettingError as error:
        place = places.get(error.field)
        raise UserError(f"{place}: {error}" if place else str(error)) from None


def _is_item(kind: Any, value: Any) -> bool:
    """Whether a value in a file is the only item of a list, written without brackets."""
    kind, _ = without_bounds(without_none(kind))
    is_nothing = isinstance(value, str) and value.lower() in _NOTHING
    return typing.get_origin(kind) is list and isinstance(value, str | int | float) and not is_nothing


def _config_files(command: Command, given: dict[str, Any]) -> list[Path]:
    files = []
    if command.named_settings is not None and SETTING in given:
        name = given[SETTING]
        if name not in command.setting_names():
            near = did_you_mean(name, command.setting_names())
            raise UserError(f"{flag(SETTING)} {name}: give one of {', '.join(command.setting_names())}{near}")
        files.append(command.named_settings / f"{name}.yaml")
    return [*files, *(Path(os.path.expanduser(word)) for word in given.get(CONFIG, []))]  # noqa: PTH111


def _value(kind: Any, words: Any) -> Any:
    """Turn the arguments of a flag into a value that the settings class can convert."""
    if isinstance(words, bool):
        return words
    optional = type(None) in typing.get_args(without_bounds(kind)[0])
    if optional and (words if isinstance(words, str) else " ".join(words)).lower() in _NOTHING:
        return None
    plain_kind = without_none(kind)
    if typing.get_origin(plain_kind) not in (list, tuple):
        return words
    if len(words) == 1 and words[0].startswith("[") and words[0].endswith("]"):
        words = [part for word in words[0][1:-1].split(",") if (part := word.strip(" '\""))]
    if _is_numeric(plain_kind):
        return [part for word in words for part in word.split(",") if part] or words
    return words


def _is_numeric(kind: Any) -> bool:
    return {without_bounds(part)[0] for part in typing.get_args(kind)} <= {int, float}


def _missing(program: str, command: Command, missing: Sequence[str], given: dict[str, Any]) -> str:
    shown = [name.upper() if name in command.positional else flag(name) for name in missing]
    message = f"{' and '.join(shown)} {'is' if len(shown) == 1 else 'are'} missing"
    kinds = field_types(command.settings)
    lists = [name for name in given if name in kinds and typing.get_origin(without_none(kinds[name])) is list]
    if lists and any(name in command.positional for name in missing):
        message += f"; {flag(lists[0])} takes every word after it, so put {command.positional[0].upper()} first"
    return f"{message} (see `{program} {command.name} --help`)"
