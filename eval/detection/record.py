"""Convert a finished detection run to a `Result`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ccop_hub.formats.tensor_use import TensorUse
from ccop_hub.regular_files import parse_json, read_regular, read_text
from ccop_hub.saved_settings import plain

from ..common import environment
from ..results.result import DataIdentity, Metrics, Result, WeightsIdentity, protocol_id
from .plan import Plan

OUTCOME_FILE = "outcome.json"
"""Scores and load report that the training process writes to Detectron2's folder."""

_METRICS_FILE = "metrics.json"


def make_result(plan: Plan, seconds: float) -> Result:
    """Make the result of a completed plan.

    Args:
        plan: the completed plan.
        seconds: wall time of this process.
    """
    cfg, configuration, settings = plan.configuration.cfg, plan.configuration, plan.settings
    outcome = parse_json(read_regular(plan.folder / OUTCOME_FILE), nan_as_null=True)
    metrics, per_class = flatten(outcome["scores"], plan.data.class_names)
    report = outcome["report"]
    notes = list(configuration.notes)
    if settings.eval_only:
        notes.append("scored again without training")
    elif outcome["started at"]:
        notes.append(f"resumed after iteration {outcome['started at']}")
    return Result(
        task="detection",
        protocol=protocol_id(settings.protocol, configuration.changed),
        engine=plan.engine,
        weights=WeightsIdentity.of(plan.weights),
        loaded=report["loaded"],
        tensors=TensorUse(**report["use"]),
        data=DataIdentity(name=plan.data.name, digest=plan.data.digest, images=plan.data.val.image_count),
        metrics=metrics,
        per_class=per_class,
        seed=settings.seed,
        effective_lr=cfg.SOLVER.BASE_LR,
        curve=_curve(plan.folder / _METRICS_FILE, cfg.SOLVER.MAX_ITER, metrics),
        settings=plain(settings),
        details={
            "loaded by part": report["counts"],
            "training images": plan.data.train.image_count,
            "categories": {str(number): name for number, name in plan.data.train.classes.items()},
        },
        notes=notes,
        versions=environment.versions("fvcore", "pycocotools", "pillow"),
        hardware=environment.hardware(settings.processes, cfg.MODEL.DEVICE),
        wall_time_s=round(seconds, 1),
    )


def flatten(scores: dict[str, Any], class_names: list[str]) -> tuple[Metrics, dict[str, Metrics]]:
    """Convert Detectron2's scores (percent, or None) to flat metrics and AP per class; undefined ones become None."""
    metrics: Metrics = {}
    per_class: dict[str, Metrics] = {}
    for kind, values in scores.items():
        defined = {name: None if value is None or not math.isfinite(value) else value for name, value in values.items()}
        classes = {f"AP-{name}": name for name in class_names}
        metrics |= {f"{kind}/{name}": value for name, value in defined.items() if name not in classes}
        by_class = {classes[name]: value for name, value in defined.items() if name in classes}
        per_class[f"{kind}/AP"] = by_class or {class_names[0]: defined["AP"]}
    return metrics, per_class


def _curve(path: Path, iterations: int, metrics: Metrics) -> list[Metrics]:
    """Read losses, learning rate and intermediate scores by step from Detectron2's JSON lines.

    The last entry has the final scores. A killed run may have left a truncated line, and steps that it repeated.
    """
    curve: dict[int, Metrics] = {}
    for line in read_text(path).split("\n"):
        try:
            entry = parse_json(line, nan_as_null=True)
        except ValueError:
            continue
        if not isinstance(entry, dict) or type(entry.get("iteration")) is not int:
            continue
        step = min(entry["iteration"] + 1, iterations)
        numbers = {name: value for name, value in entry.items() if type(value) in (int, float)}
        kept = {
            name: value for name, value in numbers.items() if name == "lr" or "loss" in name or name.endswith("/AP")
        }
        curve[step] = {"step": step, **curve.get(step, {}), **kept}
    final = {name: value for name, value in metrics.items() if name.endswith("/AP")}
    curve[iterations] = {"step": iterations, **curve.get(iterations, {}), **final}
    return [curve[step] for step in sorted(curve)]
