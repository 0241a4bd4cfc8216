"""metrics.csv: one row per logged step, written immediately, and continued when a run resumes."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from ccop_hub.errors import UserError, one_line
from ccop_hub.files import replacing
from ccop_hub.regular_files import open_regular

_MOST_DIGITS = 18
_LONGEST_ROW = 1 << 20  # characters; a row has a dozen columns


class MetricsFile(Logger):
    """Lightning logger that appends to one CSV file.

    Unlike Lightning's CSVLogger, it keeps the file of an earlier run and does not buffer rows.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = []

    def keep_until(self, done: int) -> None:
        """Remove the rows of steps after `done`, which will be repeated, and a row truncated by a crash."""
        self._rewrite(done, ())

    def last(self) -> dict[str, float]:
        """Return the last value of every column; empty if there is no file."""
        found: dict[int, str] = {}
        complete: list[str] = []
        for row in self._rows():
            if "" in row:
                found.update((place, value) for place, value in enumerate(row) if value)
            else:
                complete, found = row, {}
        found = dict(enumerate(complete)) | found
        try:
            return {self._columns[place]: float(value) for place, value in sorted(found.items())}
        except ValueError as error:
            raise self._damaged(error) from None

    @property
    def name(self) -> str:
        """Required by Lightning."""
        return "metrics"

    @property
    def version(self) -> str:
        """Required by Lightning."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; `step` is the number of completed steps."""
        row: dict[str, Any] = {"step": step, **{name: f"{value:.6g}" for name, value in metrics.items()}}
        new = [name for name in row if name not in self._columns]
        if new:
            self._rewrite(None, new)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="", lineterminator="\n").writerow(row)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing; the settings are in settings.yaml."""

    def _rows(self, done: int | None = None) -> Iterator[list[str]]:
        """Yield the undamaged rows up to step `done`, each with a value per column, after reading the columns."""
        if not self.path.is_file():
            return
        with open_regular(self.path) as binary:
            encoding = json.detect_encoding(binary.read(4))
            binary.seek(0)
            reader = csv.reader(self._lines(io.TextIOWrapper(binary, encoding)))
            try:
                self._columns = next(reader, [])
                width, place = len(self._columns), self._columns.index("step") if "step" in self._columns else None
                for row in reader:
                    if len(row) != width:
                        row = [*row, *[""] * width][:width] if row else row
                    step = row[place] if row and place is not None else ""
                    if step.isdecimal() and len(step) < _MOST_DIGITS and (done is None or int(step) <= done):
                        yield row
            except (csv.Error, UnicodeDecodeError) as error:
                raise self._damaged(error) from None

    def _lines(self, file: io.TextIOWrapper) -> Iterator[str]:
        """Yield the complete lines; a crash may have truncated the last one."""
        while (line := file.readline(_LONGEST_ROW)).endswith("\n"):
            yield line
        if len(line) == _LONGEST_ROW:
            raise csv.Error(f"a row of more than {_LONGEST_ROW} characters")

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"{self.path} is damaged ({one_line(error)}): delete it to resume without earlier rows")

    def _rewrite(self, done: int | None, new: Sequence[str]) -> None:
        """Copy the rows up to step `done`, with empty values in the new columns."""
        rows = self._rows(done)
        first = next(rows, None)  # has read the columns
        self._columns += new
        if not self._columns:
            return
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self._columns)
            if first is not None:
                kept = itertools.chain([first], rows)
                writer.writerows([*row, *[""] * len(new)] for row in kept) if new else writer.writerows(kept)
