"""Read results of `ccop-eval` for a model card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..regular_files import read_regular

RESULT_FILE = "result.json"

SCHEMA_VERSION = 1
"""Supported schema of `result.json`."""


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
    try:
        content = read_regular(file)
        record: Any = json.loads(content)
    except OSError:
        raise UserError(f"no result at {path}: give the {RESULT_FILE} of an evaluation") from None
    except (ValueError, RecursionError):
        raise UserError(f"{file} is not JSON: give the {RESULT_FILE} of an evaluation") from None
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{file} is not a result of schema {SCHEMA_VERSION}: give the {RESULT_FILE} of an evaluation")
    try:
        measured = record["weights"]["digest"]
        evaluation = Evaluation(
            content=content,
            task=str(record["task"]),
            protocol=str(record["protocol"]),
            data=str(record["data"]["name"]),
            images=int(record["data"]["images"]),
            loaded=str(record["loaded"]),
            engine=f"{record['engine']['name']} {record['engine']['version']}",
            seed=int(record["seed"]),
            metrics={name: float(value) for name, value in record["metrics"].items() if value is not None},
            notes=tuple(map(str, record.get("notes", ()))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is not a complete result ({error}): evaluate again") from None
    if measured != digest:
        raise UserError(f"{file} was measured with other weights ({measured}, not {digest}): evaluate these weights")
    return evaluation
