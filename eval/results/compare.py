"""`ccop-eval compare`: compare results in the terminal, as Markdown, CSV or an HTML page."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccop_hub.console import next_step, table_console
from ccop_hub.errors import UserError
from ccop_hub.files import make_folder, write_atomically
from ccop_hub.notebook import page_html

from ..settings import CompareSettings
from .comparison import Group, group_results
from .result import Result
from .tables import comma_separated, document, markdown, print_group


@dataclass(frozen=True)
class Comparison:
    """Compared results; notebooks display them as tables and plots.

    Attributes:
        groups: groups of comparable results, one per task, data set, protocol and engine.
        metrics: metrics to show; if empty, the task's main ones.
    """

    groups: list[Group]
    metrics: list[str]

    def markdown(self) -> str:
        """Markdown with one table per group."""
        return markdown(self.groups, self.metrics)

    def html(self) -> str:
        """A self-contained HTML page with tables and plots."""
        from .page import page  # imports matplotlib, which is slow and only needed here

        return page(self.groups, self.metrics)

    def document(self) -> list[dict[str, Any]]:
        """The groups as JSON-serialisable values."""
        return document(self.groups, self.metrics)

    def _repr_html_(self) -> str:
        return page_html(self.html())


def run(settings: CompareSettings) -> Comparison:
    """Group the results and write the requested files.

    Raises:
        UserError: a result is unreadable, or no result has a requested metric.
    """
    groups = group_results([Result.read(path) for path in settings.results])
    _require_metrics(groups, settings.metrics)
    comparison = Comparison(groups, settings.metrics)
    if settings.markdown is not None:
        _write(settings.markdown, comparison.markdown())
    if settings.csv is not None:
        _write(settings.csv, comma_separated(groups))
    if settings.html is not None:
        _write(settings.html, comparison.html())
    return comparison


def show(comparison: Comparison, settings: CompareSettings) -> None:
    """Print the tables and the paths of written files."""
    console = table_console()
    for group in comparison.groups:
        print_group(console, group, settings.metrics)
    for path in (settings.markdown, settings.csv, settings.html):
        if path is not None:
            console.print(f"wrote {path}", soft_wrap=True, markup=False)
    if settings.html is None:
        next_step("ccop-eval", "compare", *settings.results, "--html", "comparison.html")
    else:
        next_step("python", "-m", "webbrowser", settings.html)


def _require_metrics(groups: Sequence[Group], wanted: Sequence[str]) -> None:
    present = sorted({name for group in groups for row in group.rows for name in row.metrics})
    for name in wanted:
        if name not in (*present, "all"):
            near = difflib.get_close_matches(name, present, n=3, cutoff=0.3) or present
            raise UserError(f"--metrics {name}: no result has this metric; give one of {', '.join(near)}, or all")


def _write(path: Path, text: str) -> None:
    make_folder(path.parent)
    write_atomically(path, text)
