"""What the three console programs share: commands from typed settings, errors of one line, and output.

Each command is a `Command`: a class of settings whose docstring is the help text, and the function that runs it. A
named setting (`--setting`), then YAML files (`--config`), then flags override the defaults.
"""

from __future__ import annotations

from .command import Command
from .output import table_console
from .program import run_program

__all__ = ["Command", "run_program", "table_console"]
