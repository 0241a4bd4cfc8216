"""Progress of long commands: a bar on a terminal or in a notebook; elsewhere, an early estimate and a line a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from .markup import visible
from .redaction import redact

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 60.0

SECONDS_TO_ESTIMATE = 10.0
"""After this time, the first line with the remaining time is printed."""


def shows_bars() -> bool:
    """Return whether standard error can show a progress bar: it is a terminal or a notebook."""
    console = Console(stderr=True)
    return console.is_terminal or console.is_jupyter


def announce(step: str) -> None:
    """Announce on standard error a step that may take a while; names are shown literally, addresses without secrets."""
    print(f"{visible(redact(step))} ...", file=sys.stderr, flush=True)


class Progress:
    """Shows on standard error how many of `total` items are done.

    Args:
        what: description of the work.
        total: number of items.
        done: number of items already done.
        unit: name of the items, in the plural.
    """

    def __init__(self, what: str, total: int, done: int = 0, unit: str = "images") -> None:
        self._what, self._total, self._done, self._unit = what, total, done, unit
        self._begun = self._last = time.monotonic()
        self._next = self._begun + SECONDS_TO_ESTIMATE
        self._first = done
        self._bar: Bar | None = None
        if shows_bars():
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
            note = TextColumn("{task.fields[note]}")
            self._bar = Bar(TextColumn("{task.description}"), *columns, note, console=Console(file=sys.stderr))
            self._task = self._bar.add_task(what, total=total, completed=done, note="")

    def __enter__(self) -> Progress:
        if self._bar is None:
            self._print()
        else:
            self._bar.start()
        return self

    def advance(self, note: str = "", count: int = 1) -> None:
        """Count `count` more items as done; the bar shows `note` behind the remaining time."""
        self._done += count
        if self._bar is not None:
            self._bar.update(self._task, advance=count, note=note)
        elif time.monotonic() >= self._next:
            self._print()
            self._next = self._last + SECONDS_BETWEEN_LINES

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._done > self._first and kind is None:  # otherwise, the error is the last line
            self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        line = f"{self._what}: {self._done} of {self._total} {self._unit}"
        if self._first < self._done < self._total:
            left = (self._last - self._begun) * (self._total - self._done) / (self._done - self._first)
            line += f", about {duration(left)} left"
        print(line, file=sys.stderr, flush=True)


def tracked(
    items: Iterable[T], what: str, total: int, done: int = 0, unit: str = "images", shown: bool = True
) -> Generator[T, None, None]:
    """Yield items and show, unless `shown` is off, how many are done; takes the arguments of `Progress`."""
    if not shown:
        yield from items
        return
    with Progress(what, total, done, unit) as progress:
        for item in items:
            yield item
            progress.advance()


def duration(seconds: float) -> str:
    """Format a duration, rounded: `3 h 12 min`, `12 min`, `40 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
