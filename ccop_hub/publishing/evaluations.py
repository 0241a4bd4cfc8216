"""Read results of `ccop-eval` for a model card."""

from __future__ import annotations

import dataclasses
from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import UserError, one_line
from ..regular_files import parse_json, read_regular

RESULT_FILE = "result.json"

SCHEMA_VERSION = 1
"""Supported schema of `result.json`."""


LARGEST_RESULT = 16 << 20
"""Maximum size of a result file in bytes."""

_Text = Annotated[str, Field(max_length=500)]


class _Weights(BaseModel):
    digest: str


class _Data(BaseModel):
    name: _Text
    images: Annotated[int, Field(ge=0)]


class _Engine(BaseModel):
    name: _Text
    version: _Text


class _Record(BaseModel):
    """The fields of `result.json` that a model card shows; `ccop_eval` defines the whole schema."""

    model_config = ConfigDict(allow_inf_nan=False)

    task: _Text
    protocol: _Text
    loaded: _Text
    seed: int
    weights: _Weights
    data: _Data
    engine: _Engine
    metrics: dict[_Text, float | None]
    notes: list[str] = []


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One result on a model card.

    Attributes:
        content: bytes of the file.
        task: `detection`, `segmentation`, `linear`, ...
        protocol: protocol id.
        data: name of the evaluation data set.
        images: number of evaluation images.
        loaded: parts of the weights used to initialise the evaluated network.
        engine: name and version of the training and evaluation code.
        seed: seed of the run.
        metrics: metric name -> value, in percent; omits undefined metrics.
        notes: remarks for the reader.
    """

    content: bytes
    task: str
    protocol: str
    data: str
    images: int
    loaded: str
    engine: str
    seed: int
    metrics: Mapping[str, float]
    notes: tuple[str, ...]


def read_evaluation(path: Path, digest: str) -> Evaluation:
    """Read a result and check that it belongs to the published weights.

    Args:
        path: a `result.json`, or its folder.
        digest: digest of the published weights.

    Raises:
        UserError: the file is not a result, has another schema, or belongs to other weights.
    """
    file = path / RESULT_FILE if path.is_dir() else path
    remedy = f"give the {RESULT_FILE} of an evaluation"
    try:
        content = read_regular(file, LARGEST_RESULT)
        document = parse_json(content.removeprefix(BOM_UTF8))
    except OSError as error:
        raise UserError(f"no result at {path} ({error.strerror or one_line(error)}): {remedy}") from None
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({one_line(error)}): {remedy}") from None
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{file} is not a result of schema {SCHEMA_VERSION}: {remedy}")
    try:
        record = _Record.model_validate(document, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = one_line(".".join(map(str, first["loc"])))
        raise UserError(f"{file} is not a complete result ({where}: {first['msg']}): evaluate again") from None
    if record.weights.digest != digest:
        raise UserError(
            f"{file} was measured with other weights ({one_line(record.weights.digest, 80)}, not {digest}): evaluate "
            "these weights"
        )
    return Evaluation(
        content=content,
        task=record.task,
        protocol=record.protocol,
        data=record.data.name,
        images=record.data.images,
        loaded=record.loaded,
        engine=f"{record.engine.name} {record.engine.version}",
        seed=record.seed,
        metrics={name: value for name, value in record.metrics.items() if value is not None},
        notes=tuple(record.notes),
    )
