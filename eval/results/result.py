"""`result.json`: the one record that every evaluation writes and every comparison reads.

A result says what was measured (task, protocol, data), on what (weights, and which of their tensors were used), by
what (engine, versions, hardware, seed, settings), and what came out (metrics, per class, over training). All rates are
in percent (0-100). A number that is undefined, such as the AP of small objects where there are none, is `null`.

A run that scores two weights over the same data holds the second as `baseline`, and `paired` holds the difference of
each metric with the interval that pairing allows.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ccop_hub.errors import UserError
from ccop_hub.files import write_atomically
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.formats.tensor_use import TensorUse

SCHEMA_VERSION = 1
"""Raised whenever a reader of the older schema would misread a newer file."""

RESULT_FILE = "result.json"

Metrics = dict[str, float | None]
"""Flat metric name -> value; `/` separates the kind from the metric, as in `bbox/AP50`."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The code that trained and scored.

    Attributes:
        name: `detectron2`, `lightning`, ...
        version: its version or commit.
        where: how it got onto the machine (`registry`, `official`, ...); not a path.
        compiled: whether its own compiled operators were there; None where it has none.
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
        facts: what the checkpoint says of itself; empty if nothing.
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
        name: what a table calls the data set.
        digest: `sha256:...` over everything that training and scoring read.
        images: number of images that were SCORED.
    """

    name: str
    digest: str
    images: int


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A difference to the baseline, in the metric's unit, and its confidence interval."""

    difference: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The second weights of a paired run; fields as in `Result`."""

    weights: WeightsIdentity
    loaded: str
    tensors: TensorUse
    metrics: Metrics
    effective_lr: float | None = None
    per_class: dict[str, Metrics] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    curve: list[Metrics] = field(default_factory=list)


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
        effective_lr: peak learning rate that training used, after any scaling; None where nothing is trained by it.
        metrics: flat metric name -> value.
        intervals: metric name -> (low, high), 95 %, of the metric itself.
        per_class: metric name -> class name -> value.
        curve: learning curve; every entry holds `step` (optimizer steps done) and metrics.
        baseline: the second weights of a paired run.
        paired: metric name -> this minus baseline, with its interval.
        settings: the resolved settings.
        details: further tables of the task, such as every head of a sweep.
        notes: what a reader must know, one sentence each.
        versions: package -> version.
        hardware: what it ran on.
        wall_time_s: seconds from start to result, of this process.
        created: UTC, ISO 8601.
        schema_version: see `SCHEMA_VERSION`.
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
    effective_lr: float | None = None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    per_class: dict[str, Metrics] = field(default_factory=dict)
    curve: list[Metrics] = field(default_factory=list)
    baseline: Baseline | None = None
    paired: dict[str, Interval] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    wall_time_s: float | None = None
    created: str = field(default_factory=_now)
    schema_version: int = SCHEMA_VERSION

    def write(self, path: Path) -> Path:
        """Write as JSON, atomically, to `path` (a file, or a folder that gets `result.json`); returns the file."""
        target = path / RESULT_FILE if path.is_dir() or not path.suffix else path
        target.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(_finite(dataclasses.asdict(self)), indent=2, allow_nan=False, ensure_ascii=False)
        write_atomically(target, (content + "\n").encode())
        return target

    @staticmethod
    def read(path: Path) -> Result:
        """Read a result, or the `result.json` of a folder.

        Raises:
            UserError: there is no such file, or it is not a result of this or an older schema.
        """
        file = path / RESULT_FILE if path.is_dir() else path
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"no result at {path}: give the {RESULT_FILE} of an evaluation, or its folder") from None
        except (UnicodeDecodeError, json.JSONDecodeError, OSError) as error:
            raise UserError(f"{file} is not a result: {error}; give the {RESULT_FILE} of an evaluation") from None
        version = content.get("schema_version") if isinstance(content, dict) else None
        if not isinstance(version, int):
            raise UserError(f"{file} is not a result: no schema_version; give the {RESULT_FILE} of an evaluation")
        if version > SCHEMA_VERSION:
            raise UserError(f"{file} has schema {version}, newer than {SCHEMA_VERSION}: update ccop-hub to read it")
        try:
            return _RESULT.validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{file} is not a result: {where}: {first['msg']}; evaluate again to replace it") from None


_RESULT: TypeAdapter[Result] = TypeAdapter(Result)


def protocol_id(base: str, changed: dict[str, Any]) -> str:
    """A protocol's id with every departure from it: `linear-sweep`, or `linear-sweep+epochs=2,short_side=64`.

    Two runs share an id only if they share the protocol, so that a comparison never mixes a shortened run with a
    full one.

    Args:
        base: id of the protocol.
        changed: setting -> value, for those settings alone whose value is not the protocol's.
    """
    return base + ("+" + ",".join(f"{name}={changed[name]}" for name in sorted(changed)) if changed else "")


def _finite(value: Any) -> Any:
    """The same value with NaN and infinities, which JSON does not have, as None; paths as strings."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
