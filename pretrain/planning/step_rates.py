"""Measure a few steps of the planned run, with everything that belongs to them, on repeated sample images."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from ccop_hub.errors import UserError
from ccop_hub.image_sources.stored_images import StoredImage

from ..common.process_memory import memory_in_use
from ..settings import PlanSettings, RunSettings
from ..training.forecast import Forecast, cost_before_start, warn_before_start
from ..training.metrics_file import MetricsFile
from ..training.pace import Pace
from ..training.run_folder import RunFolder
from ..training.schedule import Schedule
from ..training.step import PretrainingModule
from ..training.trainer import build_trainer
from ..views.dataset import PretrainingData
from ..views.listing import ImageListing

STEPS = 1_000_000
"""Length of the run of which the first steps are measured."""


@dataclasses.dataclass(frozen=True)
class StepRates:
    """See the fields of the same names in `estimates.Rates`; `gpu` is whether the device is one."""

    gpu: bool
    start_seconds: float
    step_seconds: float
    run_memory: int
    device_memory: int
    checkpoint_disk: int
    export_disk: int


@dataclasses.dataclass(frozen=True)
class StepJob:
    """A run to measure: its settings, the number of images to pretend, and when its process was started."""

    settings: RunSettings
    images: int
    submitted: float


@dataclasses.dataclass(frozen=True)
class RepeatedListing(ImageListing):
    """A listing of `images` images that repeats the few of `source`."""

    images: int = 0

    def __len__(self) -> int:
        return self.images

    def _stored(self, index: int) -> StoredImage:
        return super()._stored(index % len(self.source))

    def boxes(self, index: int) -> Any:
        """Return the proposals of the image at `index` modulo the number of images that are there."""
        return super().boxes(index % len(self.source))


class Measured(Callback):
    """Stops a run when enough of its steps have been measured.

    Attributes:
        pace: the measured steps.
        first: time when the first step ended, as of `time.time`.
        memory: largest memory of the process and its data-loading processes in bytes.
    """

    def __init__(self) -> None:
        self.pace, self.first, self.memory = Pace(), 0.0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step."""
        self.first = self.first or time.time()
        if self.pace.step_ended():
            self.memory = memory_in_use()
            trainer.should_stop = True


def planned_run(settings: PlanSettings, images: Path, proposals: Path, out: Path) -> RunSettings:
    """Return the settings of one device's share of the planned run."""
    names = {field.name for field in dataclasses.fields(RunSettings)}
    same = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings) if field.name in names}
    same |= {"images": images, "out": out, "proposals": proposals if settings.reads_boxes else None}
    same |= {"devices": 1, "batch_size": settings.batch_size // settings.devices, "steps": STEPS}
    return RunSettings(**same, pictures=0, tensorboard=False)


def require_memory(settings: RunSettings, module: PretrainingModule, sample: ImageListing, steps: int) -> None:
    """Check that a step fits into this machine, rather than run out of memory.

    Raises:
        UserError: it does not.
    """
    boxes = 0.0 if sample.proposals is None else sample.proposals.manifest.boxes / len(sample)
    cost = cost_before_start(settings, module.objective, steps, len(sample), boxes, boxes)
    for warning in warn_before_start(dataclasses.replace(cost, disk=0), settings.out):
        raise UserError(f"{warning}; or measure on another machine, and give its --rates")


def measure_steps(job: StepJob) -> StepRates:
    """Train for a few steps; call it in a new process.

    Raises:
        UserError: a step does not fit into memory.
    """
    settings = job.settings
    near = ImageListing.open(settings.images, settings.proposals, settings)
    listing = RepeatedListing(near.source, near.proposals, settings, images=max(job.images, settings.batch_size))
    schedule = Schedule.of(settings, len(listing))
    module = PretrainingModule(settings, schedule)
    require_memory(settings, module, near, schedule.steps)
    folder = RunFolder(settings.out)
    folder.path.mkdir()
    trainer = build_trainer(settings, schedule, folder, MetricsFile(folder.metrics))
    measured = Measured()
    trainer.callbacks = [measured, *(each for each in trainer.callbacks if not isinstance(each, Forecast))]  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=PretrainingData(listing, settings, schedule.steps))
    assert measured.pace.seconds is not None
    checkpoint = folder.path / "measured.ckpt"
    trainer.save_checkpoint(checkpoint)
    parts = ("backbone.", "fpn.") if settings.uses_boxes else ("backbone.",)
    exported = [value for name, value in module.objective.query.network.state_dict().items() if name.startswith(parts)]
    gpu = module.device.type == "cuda"
    return StepRates(
        gpu=gpu,
        start_seconds=max(0.0, measured.first - job.submitted - measured.pace.seconds),
        step_seconds=measured.pace.seconds,
        run_memory=measured.memory,
        device_memory=torch.cuda.max_memory_reserved() if gpu else 0,
        checkpoint_disk=checkpoint.stat().st_size,
        export_disk=sum(value.numel() * value.element_size() for value in exported),
    )
