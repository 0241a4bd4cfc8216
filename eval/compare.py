"""`ccop-eval compare`: results as tables in the terminal, in Markdown and in CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ccop_hub.checkpoint import write_atomically

from .comparison import Group, Row, group_results
from .results import Result
from .settings import CompareSettings

_SHARED_COLUMNS = ("weights", "loaded", "data", "protocol", "engine", "seed", "lr")


def run(settings: CompareSettings) -> None:
    """Print the tables and write the files that were asked for."""
    groups = group_results([Result.read(path) for path in settings.results])
    console = Console()
    for group in groups:
        console.print(terminal_table(group, settings.metrics))
    for path, text in (
        (settings.markdown, markdown(groups, settings.metrics)),
        (settings.csv, comma_separated(groups)),
    ):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text.encode())
            console.print(f"wrote {path}")


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


def terminal_table(group: Group, metrics: Sequence[str] = ()) -> Table:
    """A group as a rich table; what its rows share is the title."""
    table = Table(
        title=group.title, title_justify="left", title_style="bold", caption=_caption(group), caption_justify="left"
    )
    for name in ("weights", "loaded", "seed", "lr"):
        table.add_column(name, overflow="fold")
    names = group.metric_names(metrics)
    for name in names:
        table.add_column(name, justify="right", overflow="fold", min_width=len(name))
    for row in group.rows:
        shared = _shared_cells(group, row)
        table.add_row(
            *(shared[name] for name in ("weights", "loaded", "seed", "lr")), *(cell(group, row, name) for name in names)
        )
    return table


def markdown(groups: Sequence[Group], metrics: Sequence[str] = ()) -> str:
    """Every group as a Markdown table under a heading of its own, every row complete."""
    lines: list[str] = []
    for group in groups:
        names = group.metric_names(metrics)
        header = [*_SHARED_COLUMNS, *names]
        lines += [f"### {_escape(group.title)}", "", _line(header), _line(["---"] * len(header))]
        for row in group.rows:
            shared = _shared_cells(group, row)
            lines.append(
                _line([*(shared[name] for name in _SHARED_COLUMNS), *(cell(group, row, name) for name in names)])
            )
        caption = _caption(group)
        lines += ["", *([caption, ""] if caption else [])]
    return "\n".join(lines)


def comma_separated(groups: Sequence[Group]) -> str:
    """Every value as one CSV line at full precision: what it is of, the value, the difference and its interval."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            "task",
            *_SHARED_COLUMNS,
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
            shared = _shared_cells(group, row)
            for metric, value in row.metrics.items():
                interval = group.paired_interval(row, metric)
                writer.writerow(
                    [
                        group.task,
                        *(shared[name] for name in _SHARED_COLUMNS),
                        row.measured.weights.digest,
                        group.digest,
                        metric,
                        value,
                        group.difference(row, metric),
                        interval.low if interval else None,
                        interval.high if interval else None,
                    ]
                )
    return buffer.getvalue()


def _shared_cells(group: Group, row: Row) -> dict[str, str]:
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


def _caption(group: Group) -> str | None:
    notes = dict.fromkeys(note for row in group.rows for note in row.result.notes)
    return "; ".join(notes) or None


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape(text) for text in cells) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
