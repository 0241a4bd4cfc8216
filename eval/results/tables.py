"""Format groups of comparable results as tables: terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ccop_hub.markup import markdown_text, visible

from .comparison import Group, Row
from .published import Published

SHARED_COLUMNS = ("weights", "loaded", "data", "protocol", "engine", "seed", "lr")
ROW_COLUMNS = ("weights", "loaded", "seed", "lr")
"""Columns that may differ between rows of a group; the table's title states the others."""

PUBLISHED = "published"
"""Marks published rows, which were not measured here."""

_NARROWEST = 6
"""Minimum width of a metric column, in characters: wide enough not to break a number across lines."""

_SHARED_WIDTH = 38
"""Minimum total width of the other columns, in characters, including borders."""


def cell(group: Group, row: Row, metric: str) -> str:
    """Format a value with its difference from the first row and interval, if known: `41.0 (+1.2 [+0.3, +2.1])`."""
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
    """Format a published value; `-` if the metric was not published."""
    value = published.metrics.get(metric)
    return "-" if value is None else f"{value:.1f}"


def print_group(console: Console, group: Group, metrics: Sequence[str] = ()) -> None:
    """Print a group under its title, split into several tables if the console is too narrow for all metrics."""
    names = group.metric_names(metrics)
    fitting = max(1, (console.width - _SHARED_WIDTH) // (_NARROWEST + 3))
    console.print(Text(title(group), style="bold"), soft_wrap=True)
    for start in range(0, max(1, len(names)), fitting):
        console.print(terminal_table(group, names[start : start + fitting]))
    if notes := caption(group):
        console.print(Text(notes, style="italic"), soft_wrap=True)


def terminal_table(group: Group, metrics: Sequence[str] = ()) -> Table:
    """Make a rich table of a group; names are never interpreted as markup."""
    table = Table()
    for name in ROW_COLUMNS:
        table.add_column(name, overflow="fold", min_width=len(name))
    names = group.metric_names(metrics)
    for name in names:
        table.add_column(Text(visible(name)), justify="right", overflow="fold", min_width=_NARROWEST)
    for row in group.rows:
        shared = shared_cells(group, row)
        texts = [*(shared[name] for name in ROW_COLUMNS), *(cell(group, row, name) for name in names)]
        table.add_row(*map(Text, texts))
    for published in group.published:
        label = f"{published.label} ({PUBLISHED}: {published.source})"
        blank = [""] * (len(ROW_COLUMNS) - 1)
        texts = [label, *blank, *(published_cell(published, name) for name in names)]
        table.add_row(*map(Text, texts), style="dim")
    return table


def markdown(groups: Sequence[Group], metrics: Sequence[str] = ()) -> str:
    """Format each group as a Markdown table under its own heading; every row is complete."""
    lines: list[str] = []
    for group in groups:
        names = group.metric_names(metrics)
        header = [*SHARED_COLUMNS, *map(visible, names)]
        lines += [
            f"### {markdown_text(title(group))}",
            "",
            table_row(map(markdown_text, header)),
            table_row(["---"] * len(header)),
        ]
        for row in group.rows:
            shared = shared_cells(group, row)
            texts = (markdown_text(shared[name]) for name in SHARED_COLUMNS)
            lines.append(table_row([*texts, *(cell(group, row, name) for name in names)]))
        for published in group.published:
            shared = dict.fromkeys(SHARED_COLUMNS, "") | {"weights": published.label, "loaded": PUBLISHED}
            shared |= {"data": visible(group.data), "protocol": visible(group.protocol), "engine": published.source}
            texts = (markdown_text(shared[name]) for name in SHARED_COLUMNS)
            lines.append(table_row([*texts, *(published_cell(published, name) for name in names)]))
        notes = caption(group)
        lines += ["", *([markdown_text(notes), ""] if notes else [])]
    return "\n".join(lines)


def comma_separated(groups: Sequence[Group]) -> str:
    """Format as CSV, one line per value: what was measured, the full-precision value, difference and interval."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    further = ("digest", "data_digest", "metric", "value", "difference", "difference_low", "difference_high")
    writer.writerow(["task", *SHARED_COLUMNS, *further])
    for group in groups:
        for row in group.rows:
            texts = [group.task, *shared_cells(group, row).values(), row.measured.weights.digest, group.digest]
            for metric, value in row.metrics.items():
                interval = group.paired_interval(row, metric)
                limits = (interval.low, interval.high) if interval else (None, None)
                writer.writerow([*map(visible, [*texts, metric]), value, group.difference(row, metric), *limits])
        for published in group.published:
            shown = [published.label, PUBLISHED, group.data, group.protocol, published.source, "", ""]
            texts = [group.task, *shown, "", group.digest]
            for metric, value in published.metrics.items():
                writer.writerow([*map(visible, [*texts, metric]), value, None, None, None])
    return buffer.getvalue()


def document(groups: Sequence[Group], metrics: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Convert groups to JSON-serialisable values at full precision: shared fields, and each row's metrics."""
    return [
        {
            "task": group.task,
            "data": group.data,
            "data_digest": group.digest,
            "images": group.images,
            "protocol": group.protocol,
            "engine": group.engine,
            "rows": [_row_document(group, row, group.metric_names(metrics)) for row in group.rows],
            "published": [
                {"name": published.label, "source": published.source, "metrics": dict(published.metrics)}
                for published in group.published
            ],
        }
        for group in groups
    ]


def _row_document(group: Group, row: Row, names: Sequence[str]) -> dict[str, Any]:
    intervals = {name: group.paired_interval(row, name) for name in names}
    return {
        "weights": row.label,
        "digest": row.measured.weights.digest,
        "loaded": row.measured.loaded,
        "seed": row.result.seed,
        "effective_lr": row.measured.effective_lr,
        "metrics": {name: row.metrics.get(name) for name in names},
        "differences": {name: group.difference(row, name) for name in names},
        "intervals": {name: [interval.low, interval.high] for name, interval in intervals.items() if interval},
        "notes": list(row.result.notes),
    }


def shared_cells(group: Group, row: Row) -> dict[str, str]:
    """A row's non-metric cells, keyed by `SHARED_COLUMNS`."""
    rate = row.measured.effective_lr
    texts = {
        "weights": row.label,
        "loaded": row.loaded,
        "data": group.data,
        "protocol": group.protocol,
        "engine": group.engine,
        "seed": str(row.result.seed),
        "lr": "-" if rate is None else f"{rate:g}",
    }
    return {name: visible(text) for name, text in texts.items()}


def title(group: Group) -> str:
    """One-line title with everything that a group's rows share."""
    return visible(
        f"{group.task} | {group.data} ({group.images} images, {group.digest[:15]}) | {group.protocol} | {group.engine}"
    )


def caption(group: Group) -> str | None:
    """The deduplicated notes of a group's results."""
    notes = dict.fromkeys(note for row in group.rows for note in row.result.notes)
    return visible("; ".join(notes)) or None


def table_row(cells: Iterable[str]) -> str:
    """Format the cells of one row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
