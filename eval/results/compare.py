"""`ccop-eval compare`: results as tables in the terminal, in Markdown, as CSV and as a page."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from ccop_hub.console import table_console
from ccop_hub.errors import UserError
from ccop_hub.files import write_atomically

from ..settings import CompareSettings
from .comparison import Group, group_results
from .result import Result
from .tables import comma_separated, markdown, print_group


def run(settings: CompareSettings) -> list[Group]:
    """Group the results and write the files that were asked for.

    Raises:
        UserError: a result that cannot be read, or a metric that none of them has.
    """
    groups = group_results([Result.read(path) for path in settings.results])
    _require_metrics(groups, settings.metrics)
    if settings.markdown is not None:
        _write(settings.markdown, markdown(groups, settings.metrics))
    if settings.csv is not None:
        _write(settings.csv, comma_separated(groups))
    if settings.html is not None:
        from .page import page  # matplotlib is slow to import, and only the page needs it

        _write(settings.html, page(groups, settings.metrics))
    return groups


def show(groups: Sequence[Group], settings: CompareSettings) -> None:
    """Print the tables, and which files were written."""
    console = table_console()
    for group in groups:
        print_group(console, group, settings.metrics)
    for path in (settings.markdown, settings.csv, settings.html):
        if path is not None:
            console.print(f"wrote {path}", soft_wrap=True, markup=False)


def _require_metrics(groups: Sequence[Group], wanted: Sequence[str]) -> None:
    present = sorted({name for group in groups for row in group.rows for name in row.metrics})
    for name in wanted:
        if name not in (*present, "all"):
            near = difflib.get_close_matches(name, present, n=3, cutoff=0.3) or present
            raise UserError(f"--metrics {name}: no result has it; give one of {', '.join(near)}, or all")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
