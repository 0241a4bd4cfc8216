"""One run of the study: train an arm with a seed, evaluate it, and write its result file."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import ccop_eval
import yaml
from ccop_eval.results.result import Result
from ccop_pretrain.cli import NAMED_SETTINGS
from ccop_pretrain.settings import RunSettings
from ccop_pretrain.tasks import pretrain
from ccop_pretrain.training.run import environment
from ccop_pretrain.training.run_folder import RunFolder
from ccop_pretrain.training.schedule import Schedule
from ccop_pretrain.training.step import PretrainingModule
from ccop_pretrain.views.listing import open_listing

from ccop_hub.files import write_atomically
from ccop_hub.formats.checkpoint import save_checkpoint
from ccop_hub.regular_files import read_json
from ccop_hub.saved_settings import plain

from .data import StudyData
from .plan import LATE, PLACES, REFERENCE, UNTRAINED, Measure, Plan


@dataclass(frozen=True)
class Study:
    """Where everything of a study is.

    Attributes:
        plan: the plan.
        data: the images and labelled data.
        work: working folder: shrunk images, proposals, runs and evaluations.
        results: folder of the result files, one per arm and seed.
        device: `cpu`, `gpu` or `auto`.
    """

    plan: Plan
    data: StudyData
    work: Path
    results: Path
    device: str

    @property
    def images(self) -> Path:
        """Folder of the shrunk training images."""
        return self.work / "images"

    @property
    def proposals(self) -> Path:
        """Folder of their proposals."""
        return self.work / "proposals"

    @property
    def measures(self) -> list[Measure]:
        """The measures of this data set."""
        return [measure for measure in self.plan.measures if self.data.name in measure.sets]

    def result(self, arm: str, seed: int) -> Path:
        """The result file of a run."""
        return self.results / f"{arm}-seed{seed}.json"

    def settings(self, arm: str, seed: int) -> RunSettings:
        """The settings of a run: a named setting, what all arms share, and what this arm changes."""
        shared = dict(self.plan.run)
        named = yaml.safe_load((NAMED_SETTINGS / f"{shared.pop('setting')}.yaml").read_text(encoding="utf-8"))
        return RunSettings(
            images=self.images,
            proposals=self.proposals,
            out=self.work / "runs" / f"{arm}-seed{seed}",
            seed=seed,
            accelerator=self.device,
            devices=1,
            **{**named, **shared, **self.plan.arms[arm]},
        )


def run_arm(study: Study, arm: str, seed: int) -> bool:
    """Train one arm and evaluate it, as far as its result file lacks it; False if a signal stopped the training."""
    path = study.result(arm, seed)
    document = read_json(path) if path.is_file() else _train(study, arm, seed)
    if document is None:
        return False
    missing = [measure for measure in study.measures if measure.name not in document["measures"]]
    if not missing and path.is_file():
        return True
    clock = Clock()
    document["measures"] |= {measure.name: _measure(study, measure, arm, seed) for measure in missing}
    before = document["evaluation"]
    document["evaluation"] = {name: round(before.get(name, 0) + passed, 1) for name, passed in clock.lap().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(document, indent=1) + "\n")
    return True


def _train(study: Study, arm: str, seed: int) -> dict[str, Any] | None:
    """Train one arm and return its result without measures; None if a signal stopped it before the end."""
    settings, clock = study.settings(arm, seed), Clock()
    if arm == UNTRAINED:
        write_initial_weights(settings, len(open_listing(settings)))
        training: dict[str, Any] = {"steps": 0}
    else:
        finished = pretrain(settings)
        if finished.exported is None:
            return None
        training = logged(settings.out) | {"steps": finished.steps}
    return {
        "arm": arm,
        "seed": seed,
        "scale": study.plan.scale,
        "data": study.data.name,
        "training": training | clock.lap(),
        "measures": {},
        "evaluation": {},
        "settings": {name: value for name, value in plain(settings).items() if name not in PLACES},
        "environment": {name: value for name, value in environment().items() if name != "command"},
    }


def write_initial_weights(settings: RunSettings, images: int) -> None:
    """Write the backbone that a run with these settings starts from to `out`."""
    module = PretrainingModule(settings, Schedule.of(settings, images))
    tensors = module.objective.query.network.state_dict()
    kept = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    backbone = {name: value for name, value in kept.items() if name.startswith("backbone.")}
    save_checkpoint(settings.out, backbone, {"arch": settings.backbone, "parts": ["backbone"], "steps": 0})


def logged(run: Path) -> dict[str, Any]:
    """Summarise a run's log: the first row of figures, their means over its last quarter, and the warnings."""
    folder = RunFolder(run)
    with folder.metrics.open(encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    late = rows[-max(1, round(LATE * len(rows))) :]
    names = [name for name in rows[-1] if name not in ("step", "images_per_second", "data_wait")]
    warnings = [line for line in folder.log.read_text(encoding="utf-8").splitlines() if " WARNING " in line]
    return {
        "first": {name: rows[0].get(name) for name in names},
        "late": {name: fmean(row[name] for row in late if name in row) for name in names},
        "warnings": [line.partition(" WARNING ")[2] for line in warnings],
    }


def _measure(study: Study, measure: Measure, arm: str, seed: int) -> dict[str, Any]:
    """Evaluate an arm, and compare it with its start and with the reference on the same images."""
    others: list[str | None] = [None]
    if measure.paired and arm != UNTRAINED:
        others = [UNTRAINED] if arm == REFERENCE else [UNTRAINED, REFERENCE]
    entry: dict[str, Any] = {}
    for other in others:
        result = _evaluate(study, measure, arm, other, seed)
        entry |= {"protocol": result.protocol, "images": result.data.images, "digest": result.data.digest}
        entry["metrics"] = {name: result.metrics[name] for name in measure.metrics}
        entry["intervals"] = {name: result.intervals.get(name) for name in measure.metrics}
        if other is not None:
            pairs = {name: result.paired[name] for name in measure.metrics}
            entry[f"against {other}"] = {
                name: {"difference": pair.difference, "low": pair.low, "high": pair.high}
                for name, pair in pairs.items()
            }
    return entry


def _evaluate(study: Study, measure: Measure, arm: str, other: str | None, seed: int) -> Result:
    folder = study.work / "evaluations" / f"{arm}-seed{seed}" / (measure.name + (f"-{other}" if other else ""))
    arguments: dict[str, Any] = {**measure.options, **study.data.options.get(measure.data, {})}
    if other is not None:
        arguments["against"] = str(study.settings(other, seed).out)
    result: Result = getattr(ccop_eval, measure.task)(
        weights=str(study.settings(arm, seed).out),
        data=study.data.labelled[measure.data],
        out=folder,
        workers=0 if study.device == "cpu" else 4,
        accelerator=study.device,
        **arguments,
    )
    return result


class Clock:
    """Measures the wall time and the processor time of parts of a run in this process."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def lap(self) -> dict[str, float]:
        """Return the seconds since the last call; on a busy machine, only `processor_seconds` means much."""
        wall, processor = time.perf_counter(), time.process_time()
        passed = {"seconds": round(wall - self._wall, 1), "processor_seconds": round(processor - self._processor, 1)}
        self._wall, self._processor = wall, processor
        return passed
