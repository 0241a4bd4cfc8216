"""Printed output of `ccop-hub`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from .console import table_console
from .errors import one_line
from .markup import visible
from .sources.registry import DEFAULTS, REGISTRY

if TYPE_CHECKING:
    from .description import Description
    from .publishing.verification import Check

_SHOWN_FACTS = ("objective", "dataset", "epochs", "steps", "licence", "paper")


def print_registry() -> None:
    """Print the registry: origin, input and published results of all weights."""
    console = table_console()
    table = _table("Published weights", "name", "data", "epochs", "holds")
    table.caption = "* loaded where no weights are named"
    origins = _table("Where they come from", "name", "digest", "licence", "paper")
    files = _table("Their files", "name", "source", "format")
    inputs = _table("Their input, on the 0-255 scale", "name", "channels", "mean", "std")
    figures = _table("Published results", "name", "protocol", "metrics", "source")
    for name, entry in REGISTRY.items():
        star = " *" if name in DEFAULTS.values() else ""
        table.add_row(name + star, entry.data, str(entry.epochs), ", ".join(entry.parts))
        origins.add_row(name, entry.digest or "none published", entry.licence, entry.paper)
        files.add_row(name, entry.url, " or ".join(entry.formats))
        inputs.add_row(
            name, entry.channel_order, *(", ".join(map(str, numbers)) for numbers in (entry.mean, entry.std))
        )
        for result in entry.results:
            metrics = ", ".join(f"{metric} {value}" for metric, value in result.metrics.items())
            figures.add_row(name, result.protocol, metrics, result.source)
    for part in (table, origins, files, inputs, figures):
        console.print(part)


def print_description(found: Description) -> None:
    """Print the source, facts, tensors by stage, size and usage of weights."""
    console = table_console()
    overview = Table(show_header=False, title=Text(visible(found.name)))
    overview.add_column(style="bold")
    overview.add_column(overflow="fold")
    for key, value in _overview(found):
        overview.add_row(key, Text(visible(value)))
    console.print(overview)
    stages = Table(title="Tensors by stage")
    for heading in ("stage", "tensors", "parameters"):
        stages.add_column(heading, justify="left" if heading == "stage" else "right")
    for group in found.groups:
        stages.add_row(group.name, str(group.tensors), f"{group.parameters:,}")
    console.print(stages)
    # Bypass the table console, so that the line can be copied from a narrow terminal.
    print(visible(found.usage))


def print_checks(checks: Sequence[Check]) -> None:
    """Print one line per check."""
    for check in checks:
        word = {True: "ok", False: "DIFFERENT", None: "not checked"}[check.passed]
        print(visible(f"{check.name}: {word} ({check.told})"))


def _table(title: str, first: str, *headings: str) -> Table:
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _overview(found: Description) -> list[tuple[str, str]]:
    facts = found.facts
    shown = facts["input"]
    rows = [
        ("backbone", found.backbone),
        ("source", found.source),
        ("digest", found.digest),
        ("format", found.format),
        ("network", _place(found)),
        ("holds", ", ".join(found.parts)),
        ("not used", _counted(found.unused)),
        ("input", f"{shown['channel_order']}, range {shown['range']}, mean {shown['mean']}, std {shown['std']}"),
        *((key, _told(facts[key])) for key in _SHOWN_FACTS if key in facts),
        ("parameters", f"{found.parameters:,}"),
        ("FLOPs at 224 x 224", _operations(found)),
    ]
    return [row for row in rows if row[1]]


def _operations(found: Description) -> str:
    return "; ".join(f"{part} {count / 1e9:.2f} G multiply-adds" for part, count in found.flops.items())


def _place(found: Description) -> str:
    """Return the location of the network in the file, if it is not the whole file."""
    also = f" (the file also contains {', '.join(map(one_line, found.others))})" if found.others else ""
    return (one_line(found.taken) or "the names without a prefix") + also if found.taken or also else ""


def _counted(names: Sequence[str]) -> str:
    if not names:
        return ""
    some = ", ".join(map(one_line, names[:6]))
    return f"{len(names)} tensors: {some}{', ...' if len(names) > 6 else ''}"


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
