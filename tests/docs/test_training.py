"""The guide's table of settings matches the code."""

import dataclasses
from pathlib import Path

from ccop_pretrain.cli import NAMED_SETTINGS
from ccop_pretrain.settings import RunSettings
from docstring_parser import parse

GUIDE = Path(__file__).parents[2] / "docs" / "training.md"


def settings_rows():
    """One row per run setting: name, default, meaning with unit."""
    described = {
        entry.arg_name: " ".join(entry.description.split())
        for base in reversed(RunSettings.__mro__)
        for entry in parse(base.__doc__ or "").params
    }
    for field in dataclasses.fields(RunSettings):
        default = field.default
        if default is dataclasses.MISSING:
            shown = "required"
        elif isinstance(default, tuple):
            shown = ", ".join(f"{value:.4g}" for value in default)
        else:
            shown = "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
        yield f"| `{field.name}` | {shown} | {described[field.name].replace('|', '/')} |"


def test_every_setting_stands_in_the_guide_with_its_default_and_meaning():
    lines = GUIDE.read_text(encoding="utf-8").partition("## All settings")[2].splitlines()
    table = [line for line in lines if line.startswith("| `")]
    assert table == list(settings_rows())


def test_every_named_setting_stands_in_the_guide():
    text = GUIDE.read_text(encoding="utf-8")
    assert [path.stem for path in sorted(NAMED_SETTINGS.glob("*.yaml")) if f"`{path.stem}`" not in text] == []
