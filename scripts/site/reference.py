"""Reference pages of the site, generated from the settings classes, signatures and docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable
from typing import Any

import docstring_parser

from ccop_hub.console import Command
from ccop_hub.console.reference import SettingReference, setting_references

PROGRAMS = {"ccop-hub": "ccop_hub", "ccop-pretrain": "ccop_pretrain", "ccop-eval": "ccop_eval"}
"""Each program and its package."""


def program_page(program: str) -> str:
    """Return the reference of a program: every command with its settings."""
    module = importlib.import_module(f"{PROGRAMS[program]}.cli")
    introduction = f"# {program}\n\n{inspect.cleandoc(module.__doc__ or '')}\n"
    shared = (
        "Every command also takes `--config FILE` (a YAML file of settings; flags override it), `--help` and "
        "`--help-all`. A setting with several values takes several words.\n"
    )
    return "\n".join([introduction, shared, *(_command_section(program, command) for command in module.COMMANDS)])


def python_page() -> str:
    """Return the reference of the functions that the three packages export."""
    parts = ["# Python functions\n\n[Python and notebooks](../docs/python.md) has an example that uses most of them.\n"]
    for package in PROGRAMS.values():
        module = importlib.import_module(package)
        parts.append(f"## {package}\n\n{_documentation(module)}\n")
        exported = {name: getattr(module, name) for name in module.__all__}
        parts += [_function_section(f"{package}.{name}", value) for name, value in exported.items() if callable(value)]
    return "\n".join(parts)


def torch_hub_page() -> str:
    """Return the reference of the entry points in hubconf.py."""
    module = importlib.import_module("ccop_hub.hub")
    names = sorted(name for name in vars(module) if name.startswith("ccop_"))
    sections = [_function_section(name, getattr(module, name), "##") for name in names]
    return "\n".join([f"# torch.hub\n\n{_documentation(module)}\n", *sections])


def _command_section(program: str, command: Command) -> str:
    """Return a command's description, usage and tables of settings, one per topic."""
    settings = setting_references(command)
    required = [setting for setting in settings if setting.required]
    words = [each.name.upper() if each.positional else f"{each.flag} {each.metavar}" for each in required]
    usage = ["```", " ".join([program, command.name, *words]), "```"]
    extras = [f"- `--setting NAME`: {_listed(command.setting_names())}"] if command.named_settings else []
    extras += ["- `--json`: print JSON instead of a table"] if command.document else []
    lines = [f"## {command.name}", "", command.introduction(), "", *usage, "", *extras]
    for topic in dict.fromkeys(setting.topic for setting in settings):
        chosen = [setting for setting in settings if setting.topic == topic]
        lines += ["", f"**{topic}**", "", *_settings_table(chosen)]
    return "\n".join([*lines, ""])


def _settings_table(settings: Iterable[SettingReference]) -> list[str]:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for each in settings:
        default = "required" if each.required else f"`{each.default}`" if each.default else ""
        limits = f" Choices: {_listed(each.choices)}." if each.choices else f" [{each.range}]" if each.range else ""
        shown = f"{each.flag} {each.metavar}".rstrip()
        rows.append(f"| `{shown}` | {default} | {_cell(each.help + limits)} |")
    return rows


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _function_section(name: str, function: Any, heading: str = "###") -> str:
    """Return the signature and the documentation of a function or class."""
    return f"{heading} {name}\n\n```python\n{_signature(name, function)}\n```\n\n{_documentation(function)}\n"


def _signature(name: str, function: Any) -> str:
    """Return a function's signature, one argument a line if it has several."""
    if isinstance(function, type) and issubclass(function, Exception):
        return f"class {name}(Exception)"
    found = inspect.signature(function)
    arguments = [_argument(parameter) for parameter in found.parameters.values()]
    listed = (
        "".join(f"\n    {argument}," for argument in arguments) + "\n" if len(arguments) > 1 else "".join(arguments)
    )
    returned = "" if found.return_annotation is found.empty else f" -> {_annotation(found.return_annotation)}"
    return f"{name}({listed}){returned}"


def _argument(parameter: inspect.Parameter) -> str:
    stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
    annotated = parameter.annotation is not parameter.empty
    text = f"{stars}{parameter.name}" + (f": {_annotation(parameter.annotation)}" if annotated else "")
    if parameter.default is parameter.empty:
        return text
    # Dataclasses stand for the default of a list by an object without a useful repr.
    default = "[]" if "factory" in repr(parameter.default) else repr(parameter.default)
    return f"{text} = {default}" if annotated else f"{text}={default}"


def _annotation(annotation: Any) -> str:
    """Return a type without the modules of its names."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", text)


def _documentation(documented: Any) -> str:
    """Return the docstring of an object as Markdown."""
    found = docstring_parser.parse(inspect.getdoc(documented) or "", docstring_parser.DocstringStyle.GOOGLE)
    parts = [found.short_description or "", _examples(found.long_description or "")]
    if found.params:
        parts.append("\n".join(f"- `{each.arg_name}`: {_line(each.description)}" for each in found.params))
    if found.returns is not None:
        kind = f"{found.returns.type_name}: " if found.returns.type_name else ""
        parts.append(f"Returns: {kind}{_line(found.returns.description)}")
    parts += [f"Raises `{each.type_name}`: {_line(each.description)}" for each in found.raises]
    return "\n\n".join(part for part in parts if part)


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _examples(text: str) -> str:
    """Put the lines of an interactive session into code blocks."""
    return re.sub(
        r"(?:^>>> .*\n?(?:^\.\.\. .*\n?)*)+",
        lambda found: "```python\n" + re.sub(r"^(>>>|\.\.\.) ", "", found[0], flags=re.MULTILINE).rstrip() + "\n```\n",
        text,
        flags=re.MULTILINE,
    )
