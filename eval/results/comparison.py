"""Group comparable results and compute their differences.

Results are grouped by (task, data digest, protocol, engine) and compared only within a group, so that a column never
mixes protocols, data sets or engines.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field

from .published import Published, published_numbers
from .result import Against, Engine, Interval, Metrics, Result

MAIN_METRICS = {
    "detection": ("bbox/AP", "bbox/AP50", "bbox/AP75", "segm/AP", "segm/AP50", "segm/AP75"),
    "segmentation": ("mIoU", "best/mIoU", "pixel_accuracy"),
    "linear": ("top1", "top5"),
    "knn": ("k*/top1",),
    "voc-svm": ("mAP",),
    "regions": ("knn/mean_class", "linear/mean_class", "knn/overall", "linear/overall"),
}
"""Task -> patterns of the metrics shown by default; other tasks show all metrics."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network's numbers in a group.

    Attributes:
        result: the result with the numbers.
        against: whether the row shows the result's second weights rather than its first.
    """

    result: Result
    against: bool = False

    @property
    def measured(self) -> Result | Against:
        """The record with this row's weights and metrics."""
        return self.result.against if self.against and self.result.against is not None else self.result

    @property
    def label(self) -> str:
        """The weights' name."""
        return self.measured.weights.name

    @property
    def loaded(self) -> str:
        """The pre-trained parts that were loaded, and the number of unused tensors."""
        unused = len(self.measured.tensors.unused)
        return self.measured.loaded + (f" ({unused} unused)" if unused else "")

    @property
    def metrics(self) -> Metrics:
        """Metric name -> value."""
        return self.measured.metrics


@dataclass(frozen=True, kw_only=True)
class Group:
    """Comparable rows: same task, data set, protocol and engine.

    Attributes:
        task: the task.
        data: the data set's name in the first row; rows are grouped by digest, not name.
        digest: the data set's digest.
        images: number of scored images.
        protocol: protocol id.
        engine: the engine as text; see `engine_label`.
        rows: one or more rows; the others are compared with the first.
    """

    task: str
    data: str
    digest: str
    images: int
    protocol: str
    engine: str
    rows: list[Row] = field(default_factory=list)

    @property
    def published(self) -> list[Published]:
        """Published numbers for the same protocol and data."""
        return published_numbers(self.protocol, self.images)

    def metric_names(self, chosen: Sequence[str] = ()) -> list[str]:
        """Available metrics to show: `chosen` ones (`all` for all), or the task's main ones by default."""
        present = list(dict.fromkeys(name for row in self.rows for name in row.metrics))
        if chosen:
            return present if "all" in chosen else [name for name in chosen if name in present]
        patterns = MAIN_METRICS.get(self.task, ())
        return [name for pattern in patterns for name in present if fnmatch.fnmatchcase(name, pattern)] or present

    def difference(self, row: Row, metric: str) -> float | None:
        """This row's value minus the first row's; None for the first row or if either value is undefined."""
        value, first = row.metrics.get(metric), self.rows[0].metrics.get(metric)
        return None if row is self.rows[0] or value is None or first is None else value - first

    def paired_interval(self, row: Row, metric: str) -> Interval | None:
        """The confidence interval of `difference` if both rows come from one paired run, else None."""
        first = self.rows[0]
        paired = not row.against and row.result.against is not None
        if row is first or not paired or not _same_numbers(row.result.against, first.measured):
            return None
        return row.result.paired.get(metric)


def engine_label(engine: Engine) -> str:
    """Format an engine as text, e.g. `detectron2 0.6 (official, compiled)`."""
    compiled = {True: "compiled", False: "uncompiled", None: ""}[engine.compiled]
    detail = ", ".join(part for part in (engine.where, compiled) if part)
    return f"{engine.name} {engine.version}".strip() + (f" ({detail})" if detail else "")


def group_results(results: Sequence[Result]) -> list[Group]:
    """Group results, in order of first appearance.

    A paired result becomes two rows, with the second weights first; rows that repeat earlier numbers are dropped.
    """
    groups: dict[tuple[str, str, str, str], Group] = {}
    for result in results:
        engine = engine_label(result.engine)
        group = groups.setdefault(
            (result.task, result.data.digest, result.protocol, engine),
            Group(
                task=result.task,
                data=result.data.name,
                digest=result.data.digest,
                images=result.data.images,
                protocol=result.protocol,
                engine=engine,
            ),
        )
        if result.against is not None and not any(_same_numbers(result.against, row.measured) for row in group.rows):
            group.rows.append(Row(result=result, against=True))
        group.rows.append(Row(result=result))
    return list(groups.values())


def _same_numbers(one: Result | Against | None, other: Result | Against) -> bool:
    return one is not None and one.weights.digest == other.weights.digest and one.metrics == other.metrics
