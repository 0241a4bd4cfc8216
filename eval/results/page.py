"""The comparison as one HTML page: tables and plots, nothing that is loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from .comparison import Group
from .plots import bars, class_differences, curves
from .tables import PUBLISHED, SHARED_COLUMNS, caption, cell, published_cell, shared_cells

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The browser itself refuses whatever the page would load from elsewhere."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #26323d; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
.shared { color: #5b6670; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid #dde2e6; text-align: left; white-space: nowrap; }
th { cursor: pointer; user-select: none; } td[data-metric] { text-align: right; }
tr.published { color: #7a858f; font-style: italic; } .difference { color: #5b6670; font-size: .85em; }
img { max-width: 100%; margin: .6rem 0; } .notes { color: #5b6670; font-size: .9em; }
"""

_SCRIPT = """
for (const head of document.querySelectorAll("th")) {
  head.addEventListener("click", () => {
    const table = head.closest("table"), column = [...head.parentNode.children].indexOf(head);
    const key = row => { const c = row.children[column]; return c.dataset.value ?? c.textContent; };
    const falling = head.dataset.order !== "falling";
    head.dataset.order = falling ? "falling" : "rising";
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = key(a), y = key(b), numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
      return (numbers ? x - y : x.localeCompare(y)) * (falling ? -1 : 1);
    });
    table.tBodies[0].append(...rows);
  });
}
document.documentElement.dataset.ready = "true";
"""


def page(groups: Sequence[Group], metrics: Sequence[str] = ()) -> str:
    """The page as HTML text.

    Args:
        groups: what to show, a section each.
        metrics: metrics in the tables; the task's main ones where none is given, `all` for every one.
    """
    sections = "\n".join(_section(number, group, group.metric_names(metrics)) for number, group in enumerate(groups))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<title>Comparison of results</title><style>{_STYLE}</style></head>\n<body><h1>Comparison of results</h1>\n"
        "<p>Rates in percent. Every table holds results of one task, data set, protocol and engine; differences are to "
        "its first row, with a 95 % interval where both were measured in one paired run. Click a heading to sort.</p>\n"
        f"{sections}\n<script>{_SCRIPT}</script></body></html>\n"
    )


def _section(number: int, group: Group, metrics: Sequence[str]) -> str:
    plots = [
        ("values with their 95 % intervals", bars(group, metrics) if metrics else None),
        ("learning curves", curves(group)),
        ("per-class differences", class_differences(group) if len(group.rows) > 1 else None),
    ]
    images = "\n".join(_image(svg, f"{group.task}: {name}") for name, svg in plots if svg is not None)
    notes = caption(group)
    return (
        f'<section id="group-{number}"><h2>{escape(group.task)}: {escape(group.protocol)}</h2>\n'
        f'<p class="shared">{escape(group.data)}, {group.images} images, {escape(group.digest)}; '
        f"{escape(group.engine)}</p>\n{_table(group, metrics)}\n"
        + (f'<p class="notes">{escape(notes)}</p>\n' if notes else "")
        + f"{images}</section>"
    )


def _table(group: Group, metrics: Sequence[str]) -> str:
    shown = [name for name in SHARED_COLUMNS if name not in ("data", "protocol", "engine")]
    head = "".join(f"<th>{escape(name)}</th>" for name in (*shown, *metrics))
    rows = []
    for row in group.rows:
        shared = shared_cells(group, row)
        cells = [f"<td>{escape(shared[name])}</td>" for name in shown]
        for metric in metrics:
            cells.append(_value_cell(metric, row.metrics.get(metric), cell(group, row, metric)))
        rows.append(f'<tr data-digest="{escape(row.measured.weights.digest)}">{"".join(cells)}</tr>')
    for published in group.published:
        label = f"{published.label} ({PUBLISHED}: {published.source})"
        cells = [f"<td>{escape(label)}</td>", *["<td></td>"] * (len(shown) - 1)]
        cells += [
            _value_cell(metric, published.metrics.get(metric), published_cell(published, metric)) for metric in metrics
        ]
        rows.append(f'<tr class="{PUBLISHED}">{"".join(cells)}</tr>')
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _value_cell(metric: str, value: float | None, text: str) -> str:
    number, _, difference = text.partition(" ")
    exact = "" if value is None else f' data-value="{value!r}"'
    further = f' <span class="difference">{escape(difference)}</span>' if difference else ""
    return f'<td data-metric="{escape(metric)}"{exact}>{escape(number)}{further}</td>'


def _image(svg: str, name: str) -> str:
    content = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(name)}" src="data:image/svg+xml;base64,{content}">'
