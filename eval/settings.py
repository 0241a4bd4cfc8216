"""Typed settings of every command of `ccop-eval` but detection's; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class CompareSettings:
    """Results side by side, a table a group of comparable ones.

    Args:
        results: `result.json` files, or folders that hold one; the first of each group is what the others differ from.
        metrics: metrics to show, such as `bbox/AP`; `all` shows every one; the task's main ones where none is given.
        markdown: file that gets the tables as Markdown.
        csv: file that gets every value, a line each, at full precision.
    """

    results: list[Path]
    metrics: list[str] = field(default_factory=list)
    markdown: Path | None = None
    csv: Path | None = None
