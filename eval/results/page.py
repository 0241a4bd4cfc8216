"""Render a comparison as a self-contained HTML page with tables and plots."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ccop_hub.markup import visible

from .comparison import Group
from .plots import bars, class_differences, curves
from .tables import PUBLISHED, ROW_COLUMNS, caption, cell, published_cell, shared_cells

TEMPLATE = "page.html"

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)


def page(groups: Sequence[Group], metrics: Sequence[str] = ()) -> str:
    """Render the page as HTML.

    Args:
        groups: the groups to show, one section each.
        metrics: metrics in the tables (`all` for all); if empty, the task's main ones.
    """
    sections = [_section(group, group.metric_names(metrics)) for group in groups]
    return _ENVIRONMENT.get_template(TEMPLATE).render(sections=sections) + "\n"


def _section(group: Group, metrics: Sequence[str]) -> dict[str, Any]:
    """Template variables of a group."""
    plots = {
        "values with their 95 % intervals": bars(group, metrics) if metrics else None,
        "learning curves": curves(group),
        "per-class differences": class_differences(group) if len(group.rows) > 1 else None,
    }
    measured = [
        {
            "published": False,
            "digest": visible(row.measured.weights.digest),
            "texts": [shared_cells(group, row)[name] for name in ROW_COLUMNS],
            "cells": [_value(name, row.metrics.get(name), cell(group, row, name)) for name in metrics],
        }
        for row in group.rows
    ]
    published = [
        {
            "published": True,
            "digest": "",
            "texts": [f"{row.label} ({PUBLISHED}: {row.source})", *[""] * (len(ROW_COLUMNS) - 1)],
            "cells": [_value(name, row.metrics.get(name), published_cell(row, name)) for name in metrics],
        }
        for row in group.published
    ]
    return {
        **{name: visible(getattr(group, name)) for name in ("task", "protocol", "data", "digest", "engine")},
        "images": group.images,
        "columns": [*ROW_COLUMNS, *map(visible, metrics)],
        "rows": [*measured, *published],
        "notes": caption(group),
        "plots": [
            {"name": f"{visible(group.task)}: {name}", "content": base64.b64encode(svg.encode()).decode()}
            for name, svg in plots.items()
            if svg is not None
        ],
    }


def _value(metric: str, value: float | None, text: str) -> dict[str, Any]:
    """A cell's content: rounded value, difference, and the exact value for sorting."""
    shown, _, difference = text.partition(" ")
    exact = None if value is None else repr(value)
    return {"metric": visible(metric), "exact": exact, "shown": shown, "difference": difference}
