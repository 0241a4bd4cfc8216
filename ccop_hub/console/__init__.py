"""Shared code of the three console programs: commands built from typed settings, one-line errors, and output.

A `Command` pairs a settings class, whose docstring is the help text, with the function to run. Settings are read from
the defaults, a named setting (`--setting`), YAML files (`--config`) and flags; later sources override earlier ones.
"""

from __future__ import annotations

from .command import Command
from .output import next_step, table_console
from .program import run_program

__all__ = ["Command", "next_step", "run_program", "table_console"]
