"""Plot a group of comparable results as SVG."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.figure import Figure

from ccop_hub.markup import visible

from .class_names import shown_class
from .comparison import Group, Row
from .result import Metrics

INK = "#26323d"
PUBLISHED_COLOUR = "#b9c0c7"
SERIES = ("#8a94a0", "#2a6fbb", "#d9772b", "#3b9a5b", "#8d58b8", "#c23b50", "#2a9a9f", "#97792f")
"""Colours by row; the first is for the reference row."""

_WIDTH = 8.0
_LONGEST_LABEL = 36

# Dollar signs in names must not start math mode. A fixed salt makes the output reproducible. Text is not converted to
# paths, so that browsers can draw characters that matplotlib's fonts lack.
_STYLE: Any = {"text.parse_math": False, "svg.hashsalt": "ccop", "svg.fonttype": "none"}

P = ParamSpec("P")
T = TypeVar("T")


def _literally(draw: Callable[P, T]) -> Callable[P, T]:
    """Apply `_STYLE` around a whole plot, since matplotlib reads it both when creating and when writing text."""

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            return draw(*args, **kwargs)

    return wrapped


_MOST_PANELS = 40
"""Maximum number of metrics to plot; the first ones are kept."""

_MOST_CLASSES = 40
"""Maximum number of classes to plot; those that differ most are kept."""


@_literally
def bars(group: Group, metrics: Sequence[str]) -> str:
    """Plot the metrics, up to 40, by row with their 95 % intervals, if available; published rows are grey."""
    metrics = metrics[:_MOST_PANELS]
    heights = [max(1.0, 0.32 * (len(group.rows) + len(group.published)) + 0.5)] * len(metrics)
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.3), layout="constrained")
    axes = figure.subplots(len(metrics), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, metric in zip(axes, metrics, strict=True):
        labels, tick = [], 0
        for number, row in enumerate(group.rows):
            value = row.metrics.get(metric)
            interval = row.measured.intervals.get(metric)
            if value is not None:
                error = None if interval is None else [[max(0.0, value - interval[0])], [max(0.0, interval[1] - value)]]
                axis.barh(tick, value, color=colour(number), xerr=error, ecolor=INK, capsize=3, height=0.7)
            labels.append(_short(row.label))
            tick += 1
        for published in group.published:
            if metric in published.metrics:
                axis.barh(tick, published.metrics[metric], color=PUBLISHED_COLOUR, height=0.7)
                labels.append(f"{_short(published.label)} (published)")
                tick += 1
        axis.set_yticks(range(tick), labels)
        axis.set_ylim(tick - 0.5, -0.5)
        axis.set_xlabel(f"{_short(metric)} (%)")
        _tidy(axis)
    return _svg(figure)


@_literally
def curves(group: Group) -> str | None:
    """Plot up to 40 learning curves by optimizer step; None if no curve has two points."""
    series = {number: row.measured.curve for number, row in enumerate(group.rows) if row.measured.curve}
    names = dict.fromkeys(name for curve in series.values() for entry in curve for name in entry if name != "step")
    drawn = [name for name in names if any(len(_points(curve, name)[0]) > 1 for curve in series.values())]
    drawn = drawn[:_MOST_PANELS]
    if not drawn:
        return None
    figure = Figure(figsize=(_WIDTH, 2.4 * len(drawn)), layout="constrained")
    axes = figure.subplots(len(drawn), 1, squeeze=False)[:, 0]
    for axis, name in zip(axes, drawn, strict=True):
        for number, curve in series.items():
            steps, values = _points(curve, name)
            axis.plot(
                steps, values, color=colour(number), marker="o", markersize=3, label=_short(group.rows[number].label)
            )
        axis.set_xlabel("optimizer steps")
        axis.set_ylabel(_short(name))
        _tidy(axis)
    axes[0].legend(frameon=False, fontsize=8)
    return _svg(figure)


@_literally
def class_differences(group: Group) -> str | None:
    """Plot per-class differences from the first row, largest first; None if there are no classes to compare."""
    first, others = group.rows[0], group.rows[1:]
    metric = next(
        (name for name in first.measured.per_class if any(name in r.measured.per_class for r in others)), None
    )
    if metric is None:
        return None
    tables = [(number, _differences(first, row, metric)) for number, row in enumerate(others, start=1)]
    largest: dict[str, float] = {}
    for _, table in tables:
        for name, value in table.items():
            largest[name] = max(largest.get(name, 0.0), abs(value))
    names = sorted(sorted(largest, key=lambda name: -largest[name])[:_MOST_CLASSES])
    if not names:
        return None
    figure = Figure(figsize=(_WIDTH, 0.22 * len(names) * max(1, len(tables)) + 1.0), layout="constrained")
    axis = figure.subplots()
    height = 0.8 / len(tables)
    for place, (number, table) in enumerate(tables):
        positions = [index + (place - (len(tables) - 1) / 2) * height for index in range(len(names))]
        label = _short(group.rows[number].label)
        axis.barh(positions, [table.get(name, 0.0) for name in names], height=height, color=colour(number), label=label)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_yticks(range(len(names)), [_short(shown_class(name)) for name in names], fontsize=8)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(f"{_short(metric)} per class, minus {_short(first.label)}'s (points)")
    axis.legend(frameon=False, fontsize=8)
    _tidy(axis)
    return _svg(figure)


def colour(number: int) -> str:
    """The colour of a row."""
    return SERIES[number % len(SERIES)]


def _differences(first: Row, row: Row, metric: str) -> dict[str, float]:
    reference, own = first.measured.per_class[metric], row.measured.per_class.get(metric, {})
    pairs = {name: (value, own.get(name)) for name, value in reference.items()}
    return {name: mine - theirs for name, (theirs, mine) in pairs.items() if mine is not None and theirs is not None}


def _points(curve: Sequence[Metrics], name: str) -> tuple[list[float], list[float]]:
    found = [(entry.get("step"), entry.get(name)) for entry in curve]
    kept = [(step, value) for step, value in found if step is not None and value is not None]
    return [step for step, _ in kept], [value for _, value in kept]


def _short(label: str) -> str:
    text = visible(label)
    if text.startswith("_"):
        text = f" {text}"  # matplotlib omits labels that start with an underscore from legends
    return text if len(text) <= _LONGEST_LABEL else f"...{text[3 - _LONGEST_LABEL :]}"


def _tidy(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(labelsize=8)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue()
