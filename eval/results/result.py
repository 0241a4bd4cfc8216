"""`result.json`: the one record that every evaluation writes and every comparison reads.

A result contains what was measured (task, protocol, data), the weights and which of their tensors were used, how it was
measured (engine, versions, hardware, seed, settings), and the outcome (metrics, per class, over training). All rates
are in percent (0-100). An undefined number, such as the AP of small objects in a data set without any, is `null`.

A run that scores two weights over the same data contains the second as `against` (`baseline` in the file), and `paired`
contains the difference of each metric with its confidence interval.
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

from ccop_hub.errors import UserError
from ccop_hub.files import make_folder, write_atomically
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.formats.tensor_use import TensorUse
from ccop_hub.notebook import summary_html
from ccop_hub.regular_files import read_regular

SCHEMA_VERSION = 1
"""Raised whenever a reader of the older schema would misread a newer file."""

RESULT_FILE = "result.json"

MAX_BYTES = 64 * 2**20
"""Largest file that is read as a result; the largest real ones, with a confusion matrix, take a few megabytes."""

MAX_POINTS = 100_000
"""Most entries of a curve: more than any evaluation takes steps between two reports."""

_LARGEST = 3.5e38
"""Above the largest float32, which no measured number can exceed."""

Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
"""A number in percent, with room for metrics that are not shares."""

Metrics = dict[str, Rate | None]
"""Flat metric name -> value; `/` separates the kind from the metric, as in `bbox/AP50`."""

Curve = list[dict[str, Number | None]]
"""Entries of a learning curve: `step` (optimizer steps done), and losses or metrics by name."""

Limits = tuple[Rate, Rate]
"""Lower and upper bound of a confidence interval."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The code that trained and scored.

    Attributes:
        name: `detectron2`, `lightning`, ...
        version: its version or commit.
        where: where it was installed from (`registry`, `official`, ...); not a path.
        compiled: whether its compiled operators were available; None if it has none.
    """

    name: str
    version: str
    where: str = ""
    compiled: bool | None = None


@dataclass(frozen=True, kw_only=True)
class WeightsIdentity:
    """Which weights were measured.

    Attributes:
        name: what the user called them (`Weights.name`).
        digest: `sha256:...` of the file or the tensors (`Weights.digest`).
        arch: timm name of the backbone.
        facts: what the checkpoint says about itself; empty if nothing.
    """

    name: str
    digest: str
    arch: str
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, weights: Weights) -> WeightsIdentity:
        """The identity of resolved weights."""
        return cls(name=weights.name, digest=weights.digest, arch=weights.arch, facts=dict(weights.facts))


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """Which data were scored.

    Attributes:
        name: the data set's name, for tables.
        digest: `sha256:...` over everything that training and scoring read.
        images: number of images that were SCORED.
    """

    name: str
    digest: str
    images: Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A difference between the two weights of a paired run, in the metric's unit, and its confidence interval."""

    difference: Rate
    low: Rate
    high: Rate
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95


@dataclass(frozen=True, kw_only=True)
class Against:
    """The second weights of a paired run; fields as in `Result`."""

    weights: WeightsIdentity
    loaded: str
    tensors: TensorUse
    metrics: Metrics
    effective_lr: Number | None = None
    per_class: dict[str, Metrics] = field(default_factory=dict)
    intervals: dict[str, Limits] = field(default_factory=dict)
    curve: Curve = field(default_factory=list)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measured row.

    Attributes:
        task: `detection`, `segmentation`, `linear`, `knn`, `voc-svm` or `regions`.
        protocol: protocol id; settings that depart from it are part of the id (see `protocol_id`).
        engine: the code that trained and scored.
        weights: which weights.
        loaded: the parts that the network started from, such as `backbone` or `backbone+fpn`.
        tensors: used, unused and missing tensors.
        data: which data.
        seed: the run's seed.
        effective_lr: peak learning rate of the training, after any scaling; None if nothing is trained by SGD.
        metrics: flat metric name -> value.
        intervals: metric name -> (low, high), 95 %, of the metric itself.
        per_class: metric name -> class name -> value.
        curve: learning curve; every entry contains `step` (optimizer steps done) and metrics.
        against: the second weights of a paired run; `baseline` in the file.
        paired: metric name -> this result's value minus that of `against`, with its interval.
        settings: the resolved settings.
        details: further tables of the task, such as every head of a sweep.
        notes: what a reader must know, one sentence each.
        versions: package -> version.
        hardware: what it ran on.
        wall_time_s: seconds from start to result, of this process.
        created: UTC, ISO 8601.
        schema_version: see `SCHEMA_VERSION`.
        folder: where it was written to or read from; not in the file.
    """

    task: str
    protocol: str
    engine: Engine
    weights: WeightsIdentity
    loaded: str
    data: DataIdentity
    metrics: Metrics
    seed: int
    tensors: TensorUse = field(default_factory=TensorUse)
    effective_lr: Number | None = None
    intervals: dict[str, Limits] = field(default_factory=dict)
    per_class: dict[str, Metrics] = field(default_factory=dict)
    curve: Curve = field(default_factory=list)
    against: Annotated[Against | None, Field(alias="baseline")] = None
    paired: dict[str, Interval] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    wall_time_s: Number | None = None
    created: str = field(default_factory=_now)
    schema_version: int = SCHEMA_VERSION
    folder: Annotated[Path | None, Field(exclude=True)] = field(default=None, init=False, compare=False)

    @property
    def pictures(self) -> list[Path]:
        """The PNG files beside the result."""
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
        """Write as JSON, atomically, to `path` (a file, or a folder that gets `result.json`); returns the file."""
        target = path / RESULT_FILE if path.is_dir() or not path.suffix else path
        make_folder(target.parent)
        content = json.dumps(self.document(), indent=2, allow_nan=False, ensure_ascii=False)
        write_atomically(target, (content + "\n").encode())
        object.__setattr__(self, "folder", target.parent)
        return target

    def document(self) -> dict[str, Any]:
        """The contents of `result.json`; numbers that are not finite are None."""
        document: dict[str, Any] = _finite(_RESULT.dump_python(self, by_alias=True, mode="json"))
        return document

    @staticmethod
    def read(path: Path) -> Result:
        """Read a result, or the `result.json` of a folder.

        Raises:
            UserError: there is no such file, or it is not a result of this or an older schema.
        """
        file = path / RESULT_FILE if path.is_dir() else path
        remedy = f"give the {RESULT_FILE} of an evaluation, or its folder"
        try:
            content = read_regular(file, MAX_BYTES).removeprefix(b"\xef\xbb\xbf")
            document = pydantic_core.from_json(content, allow_inf_nan=False)
        except FileNotFoundError:
            raise UserError(f"no result at {path}: {remedy}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{file} is not a result: {reason}; {remedy}") from None
        version = document.get("schema_version") if isinstance(document, dict) else None
        if type(version) is not int:
            raise UserError(f"{file} is not a result: no schema_version; {remedy}")
        if version > SCHEMA_VERSION:
            raise UserError(f"{file} has schema {version}, newer than {SCHEMA_VERSION}: update ccop-hub to read it")
        # Validation takes several times the memory of the document, so what is absurd is refused before.
        holders = [document, *(value for value in document.values() if isinstance(value, dict))]
        if any(isinstance(curve := holder.get("curve"), list) and len(curve) > MAX_POINTS for holder in holders):
            raise UserError(f"{file} is not a result: a curve of more than {MAX_POINTS} points; {remedy}")
        try:
            result = _RESULT.validate_json(content, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{file} is not a result: {where}: {first['msg']}; rerun the evaluation") from None
        object.__setattr__(result, "folder", file.parent)
        return result


_RESULT: TypeAdapter[Result] = TypeAdapter(Result)


def protocol_id(base: str, changed: dict[str, Any]) -> str:
    """A protocol's id with every departure from it: `linear-sweep`, or `linear-sweep+epochs=2,short_side=64`.

    Two runs share an id only if they share the protocol, so a comparison never mixes a shortened run with a full one.

    Args:
        base: id of the protocol.
        changed: setting -> value, for the settings that differ from the protocol.
    """
    return base + ("+" + ",".join(f"{name}={changed[name]}" for name in sorted(changed)) if changed else "")


def defined(values: Mapping[str, float]) -> Metrics:
    """The values with None instead of NaN, for what is undefined."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _finite(value: Any) -> Any:
    """The same JSON value with None instead of NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
