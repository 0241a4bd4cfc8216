"""`ccop-eval detection`: train Mask R-CNN from pre-trained weights, score it, record everything."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ccop_hub.checkpoint import Weights
from ccop_hub.console import plain, save_settings
from ccop_hub.errors import UserError
from ccop_hub.resolve import resolve

from .. import environment
from ..results import RESULT_FILE, DataIdentity, Engine, Metrics, Result, WeightsIdentity, protocol_id
from .coco_data import CocoData, open_coco
from .config import Configuration, configure, set_batch_size, set_iterations
from .engine import load_engine
from .settings import DetectionSettings
from .weights_loading import LoadReport, load_weights

ENGINE_FOLDER = "detectron2"
"""Folder, inside the run's, of Detectron2's own files: configuration, log, checkpoints, predictions."""

SHEET_FILE = "detections.png"
SETTINGS_FILE = "settings.yaml"
_PREDICTIONS = "coco_instances_results.json"


def run(settings: DetectionSettings) -> None:
    """Run the command; writes `result.json`, a picture sheet, the settings and Detectron2's files to `settings.out`.

    Raises:
        UserError: anything wrong with the weights, the data, the protocol or the output folder.
    """
    result = evaluate(settings)
    scores = "  ".join(f"{name} {value:.1f}" for name, value in result.metrics.items() if value is not None)
    print(f"{result.protocol}: {scores}")
    print(f"{settings.out / RESULT_FILE}\n{settings.out / SHEET_FILE}")


def evaluate(settings: DetectionSettings) -> Result:
    """Train and score; returns the result that was written."""
    started = time.monotonic()
    engine = load_engine()
    weights = resolve(settings.weights, settings.arch, settings.seed)
    data = open_coco(settings.data)
    configuration = _configuration(settings, weights, data)
    _open_output(settings, configuration)
    for note in configuration.notes:
        print(f"note: {note}")
    report, scores = _train(configuration.cfg, weights, settings)
    result = _result(settings, engine, weights, data, configuration, report, scores, time.monotonic() - started)
    from .pictures import write_sheet

    write_sheet(data.val, _engine_folder(settings) / "inference" / _PREDICTIONS, settings.out / SHEET_FILE)
    result.write(settings.out / RESULT_FILE)
    return result


def _configuration(settings: DetectionSettings, weights: Weights, data: CocoData) -> Configuration:
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("torch finds no CUDA GPU here: leave --device away or give cpu")
    input_facts = weights.facts.get("input") or {}
    configuration = configure(settings.protocol, arch=weights.arch, input_facts=input_facts, data=data, device=device)
    if settings.batch_size is not None:
        set_batch_size(configuration, _positive("batch_size", settings.batch_size))
    if settings.iterations is not None:
        set_iterations(configuration, _positive("iterations", settings.iterations))
    cfg = configuration.cfg
    cfg.SEED = settings.seed
    cfg.DATALOADER.NUM_WORKERS = settings.workers
    cfg.OUTPUT_DIR = str(_engine_folder(settings))
    if settings.load == "backbone+fpn" and "fpn" not in weights.parts:
        configuration.notes.append("the weights have no feature pyramid: it starts untrained")
    cfg.freeze()
    return configuration


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"--{name} {value} is not a number of {name}: give 1 or more")
    return value


def _engine_folder(settings: DetectionSettings) -> Path:
    return settings.out / ENGINE_FOLDER


def _open_output(settings: DetectionSettings, configuration: Configuration) -> None:
    """An output folder of this run alone, with the resolved settings and Detectron2's full configuration in it."""
    folder = _engine_folder(settings)
    if folder.exists() or (settings.out / RESULT_FILE).exists():
        if not settings.overwrite:
            raise UserError(f"{settings.out} holds another run: give another --out, or --overwrite true to replace it")
        shutil.rmtree(folder, ignore_errors=True)
        (settings.out / RESULT_FILE).unlink(missing_ok=True)
    folder.mkdir(parents=True)
    save_settings(settings, settings.out / SETTINGS_FILE)
    (folder / "config.yaml").write_text(configuration.cfg.dump(), encoding="utf-8")


def _train(cfg: Any, weights: Weights, settings: DetectionSettings) -> tuple[LoadReport, dict[str, Any]]:
    """Train by the configuration; returns what was loaded and the scorer's metrics by kind (`bbox`, `segm`)."""
    from detectron2.utils.env import seed_all_rng

    from .trainer import Trainer, logs_in

    reports: list[LoadReport] = []

    def start_from_weights(model: nn.Module) -> None:
        report = load_weights(model, weights, settings.load)
        print(report.table(), flush=True)
        reports.append(report)

    seed_all_rng(settings.seed)
    with logs_in(Path(cfg.OUTPUT_DIR)):
        trainer = Trainer(cfg, start_from_weights)
        try:
            trainer.train()
        except FloatingPointError as error:
            raise UserError(
                f"training diverged: {str(error).splitlines()[0]} give a larger --batch_size or fewer --iterations, "
                f"and see {settings.out / ENGINE_FOLDER / 'log.txt'}"
            ) from None
    return reports[0], trainer._last_eval_results


def _result(
    settings: DetectionSettings,
    engine: Engine,
    weights: Weights,
    data: CocoData,
    configuration: Configuration,
    report: LoadReport,
    scores: dict[str, Any],
    seconds: float,
) -> Result:
    cfg = configuration.cfg
    metrics, per_class = _metrics(scores, data.class_names)
    given = {"iterations": settings.iterations, "batch_size": settings.batch_size}
    changed = {name: value for name, value in given.items() if value is not None and configuration.notes}
    return Result(
        task="detection",
        protocol=protocol_id(settings.protocol, changed),
        engine=engine,
        weights=WeightsIdentity.of(weights),
        loaded=report.loaded,
        tensors=report.use,
        data=DataIdentity(name=data.name, digest=data.digest, images=data.val.image_count),
        metrics=metrics,
        per_class=per_class,
        seed=settings.seed,
        effective_lr=cfg.SOLVER.BASE_LR,
        curve=_curve(Path(cfg.OUTPUT_DIR) / "metrics.json", cfg.SOLVER.MAX_ITER),
        settings=plain(settings),
        details={"loaded by part": [dataclasses.asdict(count) for count in report.counts]},
        notes=configuration.notes,
        versions=environment.versions("fvcore", "pycocotools", "pillow"),
        hardware=environment.hardware(accelerator=cfg.MODEL.DEVICE),
        wall_time_s=round(seconds, 1),
    )


def _metrics(scores: dict[str, Any], class_names: list[str]) -> tuple[Metrics, dict[str, Metrics]]:
    """Detectron2's scores (percent) as flat metrics and as AP by class; what is undefined is None."""
    metrics: Metrics = {}
    per_class: dict[str, Metrics] = {}
    for kind, values in scores.items():
        defined = {name: value if math.isfinite(value) else None for name, value in values.items()}
        classes = {f"AP-{name}": name for name in class_names}
        metrics |= {f"{kind}/{name}": value for name, value in defined.items() if name not in classes}
        by_class = {classes[name]: value for name, value in defined.items() if name in classes}
        per_class[f"{kind}/AP"] = by_class or {class_names[0]: defined["AP"]}
    return metrics, per_class


def _curve(path: Path, iterations: int) -> list[Metrics]:
    """Losses, learning rate and intermediate scores from Detectron2's JSON lines, by number of steps done.

    Detectron2 writes the final scores one step after the last.
    """
    curve: dict[int, Metrics] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        step = min(entry["iteration"] + 1, iterations)
        kept = {name: value for name, value in entry.items() if name == "lr" or "loss" in name or name.endswith("/AP")}
        curve[step] = {"step": step, **curve.get(step, {}), **kept}
    return list(curve.values())
