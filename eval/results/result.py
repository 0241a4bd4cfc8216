"""`result.json`: the record that every evaluation writes and `compare` reads.

A result contains what was measured (task, protocol, data), the weights and their used tensors, how it was measured
(engine, versions, hardware, seed, settings), and the outcome (metrics, per-class metrics, learning curve). All rates
are in percent (0-100). An undefined number, e.g. the AP of small objects in a data set without any, is `null`.

In a paired run, which scores two sets of weights on the same data, `against` (`baseline` in the file) contains the
second, and `paired` the difference of each metric with its confidence interval.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pydantic_core
from pydantic import Field, TypeAdapter, ValidationError

from ccop_hub.errors import UserError, one_line
from ccop_hub.files import make_folder, write_atomically
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.formats.tensor_use import TensorUse
from ccop_hub.markup import utf8_text
from ccop_hub.notebook import summary_html
from ccop_hub.regular_files import read_regular

SCHEMA_VERSION = 1
"""Bumped whenever an older reader would misread a newer file."""

RESULT_FILE = "result.json"

MAX_BYTES = 16 * 2**20
"""Maximum size of a result file; the largest real ones, with a confusion matrix, take a few megabytes."""

MAX_VALUES = 1_000_000
"""Maximum number of commas and opening brackets in a result file, which bounds the memory of its values."""

MAX_POINTS = 100_000
"""Maximum number of entries in a learning curve, more than any evaluation writes."""

_LARGEST = 3.5e38
"""Just above the largest float32, which no measured number can exceed."""

Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
"""A number in percent, with some margin for metrics that are not percentages."""

Text = Annotated[str, Field(max_length=5000)]
"""A name; the longest real ones are paths of weights and ids of protocols with many departures."""

Metrics = dict[Text, Rate | None]
"""Flat metric name -> value; `/` separates kind and metric, e.g. `bbox/AP50`."""

Curve = list[dict[Text, Number | None]]
"""Learning curve entries: `step` (optimizer steps done), and losses or metrics by name."""

Limits = tuple[Rate, Rate]
"""Lower and upper bound of a confidence interval."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The code that trained and scored.

    Attributes:
        name: `detectron2`, `lightning`, ...
        version: version or commit.
        where: where it was installed from (`registry`, `official`, ...); not a path.
        compiled: whether its compiled operators were available; None if it has none.
    """

    name: Text
    version: Text
    where: Text = ""
    compiled: bool | None = None


@dataclass(frozen=True, kw_only=True)
class WeightsIdentity:
    """Which weights were measured.

    Attributes:
        name: the name the user gave (`Weights.name`).
        digest: `sha256:...` of the file or the tensors (`Weights.digest`).
        arch: timm name of the backbone.
        facts: the checkpoint's metadata; empty if it has none.
    """

    name: Text
    digest: Text
    arch: Text
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, weights: Weights) -> WeightsIdentity:
        """The identity of resolved weights."""
        return cls(name=weights.name, digest=weights.digest, arch=weights.arch, facts=dict(weights.facts))


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """Which data was scored.

    Attributes:
        name: the data set's name, for tables.
        digest: `sha256:...` of everything that training and scoring read.
        images: number of SCORED images.
    """

    name: Text
    digest: Text
    images: Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Difference of a metric between the two weights of a paired run, in its unit, with its confidence interval."""

    difference: Rate
    low: Rate
    high: Rate
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95


@dataclass(frozen=True, kw_only=True)
class Against:
    """The second weights of a paired run; see `Result` for the fields."""

    weights: WeightsIdentity
    loaded: Text
    tensors: TensorUse
    metrics: Metrics
    effective_lr: Number | None = None
    per_class: dict[Text, Metrics] = field(default_factory=dict)
    intervals: dict[Text, Limits] = field(default_factory=dict)
    curve: Curve = field(default_factory=list)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one evaluation.

    Attributes:
        task: `detection`, `segmentation`, `linear`, `knn`, `voc-svm` or `regions`.
        protocol: protocol id, including departures (see `protocol_id`).
        engine: the code that trained and scored.
        weights: the weights that were measured.
        loaded: the pre-trained parts that were loaded, e.g. `backbone` or `backbone+fpn`.
        tensors: used, unused and missing tensors.
        data: the data that was scored.
        seed: the run's seed.
        effective_lr: peak learning rate after scaling; None if nothing is trained by SGD.
        metrics: flat metric name -> value.
        intervals: metric name -> 95 % confidence interval (low, high) of the metric.
        per_class: metric name -> class name -> value.
        curve: learning curve; every entry contains `step` (optimizer steps done) and metrics.
        against: the second weights of a paired run; `baseline` in the file.
        paired: metric name -> difference from `against` (this result's value minus its value), with its interval.
        settings: the resolved settings.
        details: task-specific tables, e.g. all heads of a sweep.
        notes: caveats for the reader, one sentence each.
        versions: package -> version.
        hardware: the machine and devices.
        wall_time_s: wall time of this process, in seconds.
        created: creation time, UTC, ISO 8601.
        schema_version: see `SCHEMA_VERSION`.
        folder: folder it was written to or read from; not saved in the file.
    """

    task: Text
    protocol: Text
    engine: Engine
    weights: WeightsIdentity
    loaded: Text
    data: DataIdentity
    metrics: Metrics
    seed: int
    tensors: TensorUse = field(default_factory=TensorUse)
    effective_lr: Number | None = None
    intervals: dict[Text, Limits] = field(default_factory=dict)
    per_class: dict[Text, Metrics] = field(default_factory=dict)
    curve: Curve = field(default_factory=list)
    against: Annotated[Against | None, Field(alias="baseline")] = None
    paired: dict[Text, Interval] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[Text] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    wall_time_s: Number | None = None
    created: str = field(default_factory=_now)
    schema_version: int = SCHEMA_VERSION
    folder: Annotated[Path | None, Field(exclude=True)] = field(default=None, init=False, compare=False)

    @property
    def pictures(self) -> list[Path]:
        """The PNG files in the result's folder."""
        return [] if self.folder is None else sorted([*self.folder.glob("*.png"), *self.folder.glob("pictures/*.png")])

    def _repr_html_(self) -> str:
        rows: dict[str, object] = {"weights": self.weights.name}
        for name, value in self.metrics.items():
            low, high = self.intervals.get(name, (None, None))
            spread = "" if low is None or high is None else f" [{low:.1f}, {high:.1f}]"
            rows[name] = "-" if value is None else f"{value:.1f}{spread}"
        for name, interval in self.paired.items():
            shown = f"{interval.difference:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"
            rows[f"{name}, difference to {self.against.weights.name if self.against else 'against'}"] = shown
        title = f"{self.task}: {self.protocol}, {self.data.name} ({self.data.images} images)"
        return summary_html(title, rows, self.pictures)

    def write(self, path: Path) -> Path:
        """Write as JSON, atomically, to a file or to `result.json` in a folder; returns the file's path."""
        target = path / RESULT_FILE if path.is_dir() or not path.suffix else path
        make_folder(target.parent)
        content = json.dumps(self.document(), indent=2, allow_nan=False, ensure_ascii=False)
        write_atomically(target, content + "\n")
        object.__setattr__(self, "folder", target.parent)
        return target

    def document(self) -> dict[str, Any]:
        """The contents of `result.json`, with non-finite numbers replaced by None."""
        document: dict[str, Any] = _writable(_RESULT.dump_python(self, by_alias=True, mode="json"))
        return document

    @staticmethod
    def read(path: Path) -> Result:
        """Read a result file, or `result.json` in a folder.

        Raises:
            UserError: the file does not exist, or is not a result of this or an older schema.
        """
        file = path / RESULT_FILE if path.is_dir() else path
        remedy = f"give the {RESULT_FILE} of an evaluation, or its folder"
        try:
            content = read_regular(file, MAX_BYTES).removeprefix(b"\xef\xbb\xbf")
            if sum(content.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
                raise ValueError(f"more than {MAX_VALUES:,} values")
            document = pydantic_core.from_json(content, allow_inf_nan=False)
        except FileNotFoundError:
            raise UserError(f"no result at {path}: {remedy}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or one_line(error)
            raise UserError(f"{file} is not a result: {reason}; {remedy}") from None
        version = document.get("schema_version") if isinstance(document, dict) else None
        if type(version) is not int:
            raise UserError(f"{file} is not a result: no schema_version; {remedy}")
        if version > SCHEMA_VERSION:
            raise UserError(f"{file} has schema {version}, newer than {SCHEMA_VERSION}: update ccop-hub to read it")
        # Validation takes several times the document's memory, so absurdly large documents are refused first.
        holders = [document, *(value for value in document.values() if isinstance(value, dict))]
        if any(isinstance(curve := holder.get("curve"), list) and len(curve) > MAX_POINTS for holder in holders):
            raise UserError(f"{file} is not a result: a curve of more than {MAX_POINTS} points; {remedy}")
        del document, holders
        try:
            result = _RESULT.validate_json(content, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = one_line(".".join(one_line(part, 60) for part in first["loc"]))
            raise UserError(f"{file} is not a result: {where}: {first['msg']}; rerun the evaluation") from None
        object.__setattr__(result, "folder", file.parent)
        return result


_RESULT: TypeAdapter[Result] = TypeAdapter(Result)


def protocol_id(base: str, changed: dict[str, Any]) -> str:
    """Format a protocol's id with its departures, e.g. `linear-sweep` or `linear-sweep+epochs=2,short_side=64`.

    Runs have the same id only if they follow the same protocol, so shortened runs are never compared with full ones.

    Args:
        base: the protocol's id.
        changed: setting -> value for settings that differ from the protocol.
    """
    return base + ("+" + ",".join(f"{name}={changed[name]}" for name in sorted(changed)) if changed else "")


def defined(values: Mapping[str, float]) -> Metrics:
    """Replace NaN, for undefined values, with None."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _writable(value: Any) -> Any:
    """Replace what JSON cannot represent: NaN and infinities by None, bytes of file names by escapes."""
    if isinstance(value, dict):
        return {utf8_text(key): _writable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_writable(item) for item in value]
    if isinstance(value, str):
        return utf8_text(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
