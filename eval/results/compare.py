"""`ccop-eval compare`: results as tables in the terminal, in Markdown, as CSV and as a page."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ccop_hub.console import table_console
from ccop_hub.files import write_atomically

from ..settings import CompareSettings
from .comparison import group_results
from .result import Result
from .tables import comma_separated, markdown, print_group


def run(settings: CompareSettings) -> None:
    """Print the tables and write the files that were asked for."""
    groups = group_results([Result.read(path) for path in settings.results])
    console = table_console()
    for group in groups:
        print_group(console, group, settings.metrics)
    if settings.markdown is not None:
        _write(console, settings.markdown, markdown(groups, settings.metrics))
    if settings.csv is not None:
        _write(console, settings.csv, comma_separated(groups))
    if settings.html is not None:
        from .page import page  # matplotlib is slow to import, and only the page needs it

        _write(console, settings.html, page(groups, settings.metrics))


def _write(console: Console, path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    console.print(f"wrote {path}", soft_wrap=True, markup=False)
