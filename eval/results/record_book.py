"""`ccop-eval leaderboard`: rank all results in a folder, one table and one plot per group of comparable results."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccop_hub.errors import UserError
from ccop_hub.files import make_folder, write_atomically
from ccop_hub.markup import markdown_text, visible
from ccop_hub.regular_files import read_regular

from ..settings import LeaderboardSettings
from .comparison import Group, Row, group_results
from .published import Published
from .result import RESULT_FILE, Result
from .tables import PUBLISHED, caption, document, published_cell, table_row, title

MAX_PAGE_BYTES = 64 * 2**20
"""Maximum size of an earlier page to compare with; real ones take some kilobytes."""

_DIGEST = "-" + 8 * "[0-9a-f]"
"""How the name of every plot ends: the start of the data's digest, as a glob pattern."""

_START, _END = "<!-- leaderboard -->\n", "<!-- end of leaderboard -->\n"
"""Text outside these lines of an existing page is kept."""


@dataclass(frozen=True)
class Leaderboard:
    """Ranked results.

    Attributes:
        groups: groups of comparable results, with the best row first.
        page: the Markdown page.
        path: the page's file.
        plots: file -> SVG.
        stale: whether the file differs from the page, or plots are missing or left over; always False if the files were
            written.
    """

    groups: list[Group]
    page: str
    path: Path
    plots: dict[Path, str]
    stale: bool

    def document(self) -> list[dict[str, Any]]:
        """The groups as JSON-serialisable values, as `compare --json` prints them."""
        return document(self.groups)


def run(settings: LeaderboardSettings) -> Leaderboard:
    """Rank the results below a folder, and write the page and its plots unless `check` is set.

    Plots of earlier records, which the page no longer shows, are deleted.

    Raises:
        UserError: the folder contains no result, a result is unreadable, or the page cannot be written.
    """
    files = sorted(settings.records.rglob(RESULT_FILE))
    if not files:
        raise UserError(f"{settings.records} contains no {RESULT_FILE}: give a folder of evaluations")
    groups = [_ranked(group) for group in group_results([Result.read(file) for file in files])]
    groups.sort(key=lambda group: (group.task, group.data, group.protocol, group.engine, group.digest))
    page, plots = _page(groups, settings.out), _plots(groups, settings.out)
    left = [path for path in _plot_folder(settings.out).glob(f"*{_DIGEST}.svg") if path not in plots]
    current = _content(settings.out) == page.encode() and all(path.is_file() for path in plots) and not left
    stale = settings.check and not current
    if not settings.check:
        make_folder(_plot_folder(settings.out))
        for path in left:
            path.unlink()
        for path, svg in plots.items():
            write_atomically(path, svg)
        write_atomically(settings.out, page)
    return Leaderboard(groups, page, settings.out, plots, stale)


def _ranked(group: Group) -> Group:
    """Sort the rows by the task's first main metric, best first; each network appears once."""
    names = group.metric_names()
    once = {(row.measured.weights.digest, row.result.seed, str(row.metrics)): row for row in reversed(group.rows)}
    group.rows[:] = once.values()

    def rank(row: Row) -> tuple[float, str, int]:
        value = row.metrics.get(names[0]) if names else None
        return (math.inf if value is None else -value, row.label, row.result.seed)

    group.rows.sort(key=rank)
    return group


def _page(groups: Sequence[Group], out: Path) -> str:
    """Return the page: the text of an existing one around the tables, or a heading."""
    before, after = f"# Leaderboard\n\n{_START}", _END
    text = _content(out).decode("utf-8", "replace")
    if _START in text and _END in text:
        before = text.partition(_START)[0] + _START
        after = _END + text.partition(_END)[2]
    return "\n".join([before, *(_section(group, out) for group in groups), after])


def _section(group: Group, out: Path) -> str:
    names = group.metric_names()
    header = ["", "weights", "seed", *map(visible, names), "record"]
    lines = [f"## {markdown_text(title(group))}", "", table_row(header), table_row(["---"] * len(header))]
    first = names[0] if names else ""
    rows: list[Row | Published] = [*group.rows, *group.published]
    rows.sort(key=lambda row: math.inf if (value := row.metrics.get(first)) is None else -value)
    for place, row in enumerate(rows, start=1):
        if isinstance(row, Published):
            label, seed, record = f"{row.label} ({PUBLISHED}: {row.source})", "", ""
            values = [published_cell(row, name) for name in names]
        else:
            label, seed, record = row.label, str(row.result.seed), _record(row, out)
            values = [_cell(row, name) for name in names]
        lines.append(table_row([str(place), markdown_text(visible(label)), seed, *values, record]))
    notes = [markdown_text(text), ""] if (text := caption(group)) else []
    picture = f"![{markdown_text(title(group))}]({_relative(_plot_file(group, out), out)})"
    return "\n".join([*lines, "", *notes, picture, ""])


def _cell(row: Row, metric: str) -> str:
    value, interval = row.metrics.get(metric), row.measured.intervals.get(metric)
    if value is None:
        return "-"
    return f"{value:.1f}" + ("" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]")


def _record(row: Row, out: Path) -> str:
    folder = row.result.folder
    return "" if folder is None else f"[json]({_relative(folder / RESULT_FILE, out)})"


def _plots(groups: Sequence[Group], out: Path) -> dict[Path, str]:
    from .plots import bars  # matplotlib is slow to import

    drawn = {_plot_file(group, out): (group, group.metric_names()) for group in groups}
    return {path: bars(group, names) for path, (group, names) in drawn.items() if names}


def _plot_file(group: Group, out: Path) -> Path:
    words = re.sub(r"[^a-z0-9]+", "-", f"{group.task} {group.protocol} {group.data}".lower()).strip("-")[:80]
    return _plot_folder(out) / f"{words}-{group.digest.rpartition(':')[2][:8]}.svg"


def _plot_folder(out: Path) -> Path:
    return out.parent / f"{out.stem}-plots"


def _relative(path: Path, out: Path) -> str:
    relative = os.path.relpath(path.resolve(), out.parent.resolve())
    return Path(relative).as_posix().replace(" ", "%20").replace(")", "%29")


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_PAGE_BYTES)
    except FileNotFoundError:
        return b""
