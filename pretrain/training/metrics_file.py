"""metrics.csv: one row per logged step, written immediately, and continued when a run resumes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from ccop_hub.errors import UserError, one_line
from ccop_hub.files import write_atomically
from ccop_hub.regular_files import read_text

_MOST_DIGITS = 18


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
        rows = [row for row in self._read() if _step(row) <= done]
        if self._columns:
            self._rewrite(rows)

    def last(self) -> dict[str, float]:
        """Return the last value of every column; empty if there is no file."""
        found = {name: value for row in self._read() for name, value in row.items() if value}
        try:
            return {name: float(value) for name, value in found.items()}
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
            rows = self._read()
            self._columns += new
            self._rewrite(rows)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="", lineterminator="\n").writerow(row)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing; the settings are in settings.yaml."""

    def _read(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        try:
            text = read_text(self.path)
        except UnicodeDecodeError as error:
            raise self._damaged(error) from None
        # A crash may have truncated the last row; complete rows end with a newline.
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
        try:
            self._columns = list(reader.fieldnames or [])
            rows = list(reader)
        except csv.Error as error:
            raise self._damaged(error) from None
        return [{name: row[name] or "" for name in self._columns} for row in rows if _step(row) >= 0]

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"{self.path} is damaged ({one_line(error)}): delete it to resume without earlier rows")

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue())


def _step(row: Mapping[str, str | None]) -> int:
    """Return the step of a row; -1 if it is damaged."""
    text = row.get("step") or ""
    return int(text) if text.isdecimal() and len(text) < _MOST_DIGITS else -1
