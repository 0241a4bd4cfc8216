"""docs/python.md names every function."""

import re
from pathlib import Path

import ccop_eval
import ccop_pretrain

import ccop_hub

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_page_names_every_function():
    for package in (ccop_hub, ccop_pretrain, ccop_eval):
        (row,) = re.findall(rf"^\| `{package.__name__}` \| (.*) \|$", PAGE, re.MULTILINE)
        functions = [name for name in package.__all__ if name[0].islower() and not name.startswith("_")]
        assert sorted(re.findall(r"`(\w+)`", row)) == sorted(functions)
