"""The plan of a detection run: all inputs resolved and checked before anything is written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from ccop_hub.errors import UserError
from ccop_hub.files import check_folder, make_folder, write_atomically
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.regular_files import read_json
from ccop_hub.saved_settings import save_settings
from ccop_hub.sources.resolve import resolve

from ..common.run_folder import SETTINGS_FILE, require_same
from ..results.result import RESULT_FILE, Engine
from ..settings import DetectionSettings
from .coco_data import CocoData
from .config import Configuration, configure, load_protocol, set_batch_size, set_iterations, set_precision
from .data_sources import image_names, open_data, take_part
from .engine import load_engine

ENGINE_FOLDER = "detectron2"
"""Subfolder of the run for Detectron2's files: configuration, log, checkpoints, predictions."""

AGAINST_FOLDER = "against"
"""Subfolder of the run for the second weights' run."""

SHEET_FILE = "detections.png"
IDENTITY_FILE = "identity.json"
FEW_IMAGES_FILE = "few_images.txt"
FINAL_CHECKPOINT = "model_final.pth"

_MACHINE_KEYS = ("OUTPUT_DIR", "DATALOADER.NUM_WORKERS", "DATASETS.TRAIN", "DATASETS.TEST", "SOLVER.CHECKPOINT_PERIOD")
"""Configuration keys that may change on resume: file locations and checkpoint frequency."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A fully resolved and checked run.

    Attributes:
        settings: the user's settings.
        engine: the installed Detectron2.
        weights: the weights that the detector starts from.
        data: the data set for training and scoring.
        configuration: frozen Detectron2 configuration, with notes.
    """

    settings: DetectionSettings
    engine: Engine
    weights: Weights
    data: CocoData
    configuration: Configuration

    @property
    def folder(self) -> Path:
        """Folder of Detectron2's files."""
        return self.settings.out / ENGINE_FOLDER

    def identity(self) -> dict[str, str]:
        """Values that must match for a run to be resumed or rescored."""
        cfg = self.configuration.cfg.clone()
        cfg.defrost()
        for key in _MACHINE_KEYS:
            *path, name = key.split(".")
            node = cfg
            for part in path:
                node = node[part]
            del node[name]
        return {
            "weights": self.weights.digest,
            "data": self.data.digest,
            "parts to load": self.settings.load,
            "protocol": self.settings.protocol,
            "processes": str(self.settings.processes),
            "settings": hashlib.sha256(cfg.dump().encode(errors="surrogateescape")).hexdigest(),
        }


def make_plan(settings: DetectionSettings) -> Plan:
    """Resolve data, protocol and weights. Local inputs are checked before any weights are downloaded.

    Raises:
        UserError: the settings are invalid, or this machine cannot run them.
    """
    check_folder(settings.out)
    _device(settings)
    engine = load_engine()
    data = open_data(str(settings.data), masks=load_protocol(settings.protocol).MODEL.MASK_ON)
    if settings.few_images is not None:
        data = take_part(data, int(settings.few_images.removesuffix("%")), settings.seed)
    weights = resolve(settings.weights, settings.backbone, settings.seed)
    return Plan(settings, engine, weights, data, _configuration(settings, weights, data))


def check_output(plan: Plan) -> None:
    """Check that the output folder can be used for this run.

    Raises:
        UserError: the folder contains another run, or has nothing to rescore.
    """
    settings, folder = plan.settings, plan.folder
    check_folder(settings.out)
    if settings.eval_only and not (folder / FINAL_CHECKPOINT).is_file():
        raise UserError(f"{settings.out} contains no finished run to score: train first, without --eval-only")
    if settings.overwrite or not _holds_a_run(settings.out):
        return
    if not (settings.resume or settings.eval_only):
        raise UserError(
            f"{settings.out} contains a run already: remove --no-resume to resume it, give --overwrite to replace it, "
            "or another --out"
        )
    if (settings.out / SETTINGS_FILE).is_file():
        require_same(settings.out, settings)
    _check_identity(plan)


def open_output(plan: Plan) -> None:
    """Claim the output folder, checked before, and write the settings and full configuration to it."""
    settings, folder = plan.settings, plan.folder
    make_folder(settings.out)
    if settings.overwrite:
        shutil.rmtree(settings.out / AGAINST_FOLDER, ignore_errors=True)
    if settings.overwrite or not _holds_a_run(settings.out):
        shutil.rmtree(folder, ignore_errors=True)
        for name in (RESULT_FILE, SHEET_FILE, FEW_IMAGES_FILE):
            (settings.out / name).unlink(missing_ok=True)
    make_folder(folder)
    save_settings(settings, settings.out / SETTINGS_FILE)
    write_atomically(folder / IDENTITY_FILE, json.dumps(plan.identity(), indent=2) + "\n")
    write_atomically(folder / "config.yaml", plan.configuration.cfg.dump())
    if settings.few_images is not None:
        listed = "".join(f"{name}\n" for name in image_names(plan.data.train))
        write_atomically(settings.out / FEW_IMAGES_FILE, listed)


def _holds_a_run(out: Path) -> bool:
    """Whether the folder has a result or a checkpoint, to resume or to lose. A failed start leaves neither."""
    return (out / RESULT_FILE).exists() or any((out / ENGINE_FOLDER).glob("*.pth"))


def _check_identity(plan: Plan) -> None:
    path = plan.folder / IDENTITY_FILE
    if not path.is_file():
        return
    try:
        before = read_json(path)
    except (OSError, ValueError):
        before = None
    if not isinstance(before, dict):
        raise UserError(f"{path} is damaged: give --overwrite to start over, or another --out")
    other = [name for name, value in plan.identity().items() if before.get(name) != value]
    if other:
        raise UserError(
            f"{plan.settings.out} contains a run with other {', '.join(other)}: give --overwrite to replace it, or "
            "another --out"
        )


def _configuration(settings: DetectionSettings, weights: Weights, data: CocoData) -> Configuration:
    configuration = configure(
        settings.protocol,
        arch=weights.arch,
        input_facts=weights.facts.get("input") or {},
        data=data,
        device=_device(settings),
        processes=settings.processes,
    )
    set_batch_size(configuration, settings.batch_size, settings.processes)
    if settings.precision is not None:
        set_precision(configuration, settings.precision)
    if settings.iterations is not None:
        set_iterations(configuration, settings.iterations)
    cfg, notes = configuration.cfg, configuration.notes
    cfg.SEED = settings.seed
    cfg.DATALOADER.NUM_WORKERS = settings.workers
    cfg.OUTPUT_DIR = str(settings.out / ENGINE_FOLDER)
    if settings.save_every is not None:
        cfg.SOLVER.CHECKPOINT_PERIOD = settings.save_every
    if settings.evaluate_every is not None:
        cfg.TEST.EVAL_PERIOD = settings.evaluate_every
    if settings.few_images is not None:
        configuration.changed["few_images"] = settings.few_images
        notes.append(f"trained on {data.train.image_count} images, {settings.few_images} of them all, by the seed")
    notes += [*data.notes, *_notes_on_parts(cfg, settings, weights), *_notes_on_scoring(configuration, data)]
    cfg.freeze()
    return configuration


def _notes_on_parts(cfg: Any, settings: DetectionSettings, weights: Weights) -> list[str]:
    if settings.load != "backbone+fpn":
        return []
    if "fpn" not in cfg.MODEL.BACKBONE.NAME:
        return ["the protocol's detector has no feature pyramid: only the backbone is loaded"]
    return [] if "fpn" in weights.parts else ["the weights have no feature pyramid: it starts untrained"]


def _notes_on_scoring(configuration: Configuration, data: CocoData) -> list[str]:
    if configuration.scorer == "voc":
        return ["AP by Pascal VOC 2007's metric (11 points of recall)"]
    if data.name.startswith("voc"):
        return ["AP by COCO's metric: objects that VOC marks as difficult count like any other"]
    if data.name.startswith("cityscapes"):
        return ["AP by COCO's metric on the converted annotations, not by Cityscapes' own scorer"]
    return []


def _device(settings: DetectionSettings) -> str:
    """`cuda` or `cpu`."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if settings.accelerator == "mps":
        raise UserError("Detectron2 does not support --accelerator mps: use cpu or cuda")
    if settings.accelerator in ("gpu", "cuda") and not there:
        raise UserError(f"--accelerator {settings.accelerator}: torch finds no CUDA GPU; remove the flag, or use cpu")
    device = "cuda" if there and settings.accelerator != "cpu" else "cpu"
    if settings.processes > 1 and device == "cpu":
        raise UserError(
            f"{settings.processes} processes need one GPU each, but training runs on the CPU: use --devices 1"
        )
    if device == "cuda" and settings.devices > there:
        raise UserError(f"--devices {settings.devices} exceeds the {there} GPUs that torch finds: use fewer devices")
    if device == "cpu" and settings.precision == "fp16":
        raise UserError("--precision fp16 needs a CUDA GPU: use float32, or remove the flag")
    return device
