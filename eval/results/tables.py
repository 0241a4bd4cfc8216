"""A group of comparable results as a table: in the terminal, in Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from .comparison import Group, Row
from .published import Published

SHARED_COLUMNS = ("weights", "loaded", "data", "protocol", "engine", "seed", "lr")
PUBLISHED = "published"
"""Marks rows that were not measured here."""

_NARROWEST = 6
"""Least width of a metric column, in characters: a folded cell still holds a whole number."""

_SHARED_WIDTH = 38
"""Least width of the columns besides the metrics, in characters, borders included."""


def cell(group: Group, row: Row, metric: str) -> str:
    """One value with its difference to the group's first row: `41.0 (+1.2)`, and the interval where there is one."""
    value = row.metrics.get(metric)
    if value is None:
        return "-"
    text = f"{value:.1f}"
    difference, interval = group.difference(row, metric), group.paired_interval(row, metric)
    if difference is None:
        return text
    spread = f" [{interval.low:+.1f}, {interval.high:+.1f}]" if interval is not None else ""
    return f"{text} ({difference:+.1f}{spread})"


def published_cell(published: Published, metric: str) -> str:
    """One published value, or `-` where that metric was not published."""
    value = published.metrics.get(metric)
    return "-" if value is None else f"{value:.1f}"


def print_group(console: Console, group: Group, metrics: Sequence[str] = ()) -> None:
    """Print a group; where the console is too narrow for all metrics, as several tables below each other."""
    names = group.metric_names(metrics)
    fitting = max(1, (console.width - _SHARED_WIDTH) // (_NARROWEST + 3))
    for start in range(0, max(1, len(names)), fitting):
        console.print(terminal_table(group, names[start : start + fitting]))


def terminal_table(group: Group, metrics: Sequence[str] = ()) -> Table:
    """A group as a rich table; what its rows share is the title."""
    table = Table(
        title=group.title, title_justify="left", title_style="bold", caption=caption(group), caption_justify="left"
    )
    for name in ("weights", "loaded", "seed", "lr"):
        table.add_column(name, overflow="fold", min_width=len(name))
    names = group.metric_names(metrics)
    for name in names:
        table.add_column(name, justify="right", overflow="fold", min_width=_NARROWEST)
    for row in group.rows:
        shared = shared_cells(group, row)
        table.add_row(
            *(shared[name] for name in ("weights", "loaded", "seed", "lr")), *(cell(group, row, name) for name in names)
        )
    for published in group.published:
        cells = (published_cell(published, name) for name in names)
        table.add_row(f"{published.label} ({PUBLISHED}: {published.source})", "", "", "", *cells, style="dim")
    return table


def markdown(groups: Sequence[Group], metrics: Sequence[str] = ()) -> str:
    """Every group as a Markdown table under a heading of its own, every row complete."""
    lines: list[str] = []
    for group in groups:
        names = group.metric_names(metrics)
        header = [*SHARED_COLUMNS, *names]
        lines += [f"### {_escape(group.title)}", "", _line(header), _line(["---"] * len(header))]
        for row in group.rows:
            shared = shared_cells(group, row)
            lines.append(
                _line([*(shared[name] for name in SHARED_COLUMNS), *(cell(group, row, name) for name in names)])
            )
        for published in group.published:
            shared = dict.fromkeys(SHARED_COLUMNS, "") | {"weights": published.label, "loaded": PUBLISHED}
            shared |= {"data": group.data, "protocol": group.protocol, "engine": published.source}
            lines.append(
                _line(
                    [*(shared[name] for name in SHARED_COLUMNS), *(published_cell(published, name) for name in names)]
                )
            )
        notes = caption(group)
        lines += ["", *([notes, ""] if notes else [])]
    return "\n".join(lines)


def comma_separated(groups: Sequence[Group]) -> str:
    """Every value as one CSV line at full precision: what it is of, the value, the difference and its interval."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            "task",
            *SHARED_COLUMNS,
            "digest",
            "data_digest",
            "metric",
            "value",
            "difference",
            "difference_low",
            "difference_high",
        ]
    )
    for group in groups:
        for row in group.rows:
            shared = shared_cells(group, row)
            for metric, value in row.metrics.items():
                interval = group.paired_interval(row, metric)
                writer.writerow(
                    [
                        group.task,
                        *(shared[name] for name in SHARED_COLUMNS),
                        row.measured.weights.digest,
                        group.digest,
                        metric,
                        value,
                        group.difference(row, metric),
                        interval.low if interval else None,
                        interval.high if interval else None,
                    ]
                )
        for published in group.published:
            for metric, value in published.metrics.items():
                shown = [published.label, PUBLISHED, group.data, group.protocol, published.source, "", ""]
                writer.writerow([group.task, *shown, "", group.digest, metric, value, None, None, None])
    return buffer.getvalue()


def shared_cells(group: Group, row: Row) -> dict[str, str]:
    """What a row says besides its metrics, by `SHARED_COLUMNS`."""
    rate = row.measured.effective_lr
    return {
        "weights": row.label,
        "loaded": row.loaded,
        "data": group.data,
        "protocol": group.protocol,
        "engine": group.engine,
        "seed": str(row.result.seed),
        "lr": "-" if rate is None else f"{rate:g}",
    }


def caption(group: Group) -> str | None:
    """Every note of the group's results."""
    notes = dict.fromkeys(note for row in group.rows for note in row.result.notes)
    return "; ".join(notes) or None


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape(text) for text in cells) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
