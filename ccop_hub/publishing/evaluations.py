"""Results of `ccop-eval`, read by their schema for a model card."""

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
"""The schema of `result.json` that is read here."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One result, as a model card shows it.

    Attributes:
        content: the file's bytes.
        task: `detection`, `segmentation`, `linear`, ...
        protocol: protocol id.
        data: name of the data set that was scored.
        images: number of images scored.
        loaded: parts of the weights that the evaluated network started from.
        engine: name and version of the code that trained and scored.
        seed: the run's seed.
        metrics: metric name -> value, in percent; undefined ones left out.
        notes: what a reader must know.
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
    """Read a result of these weights.

    Args:
        path: a `result.json`, or the folder that contains it.
        digest: of the weights that are published; results of other weights are refused.

    Raises:
        UserError: not a result, of another schema, or of other weights.
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
