"""A pre-training run, from a folder of images to an exported network."""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from ccop_hub.errors import UserError
from ccop_hub.files import make_folder, remove_temporary_files
from ccop_hub.formats.weights_files import BACKBONE_FILE, WEIGHTS_FILE, find_weights_file
from ccop_hub.image_sources.skipped import SkippedImages
from ccop_hub.images import UnreadableImageError
from ccop_hub.locks import folder_lock
from ccop_hub.notebook import summary_html
from ccop_hub.progress import shows_bars
from ccop_hub.stopping import StopRequest

from ..common import distributed
from ..estimates import size
from ..look.inspection import write_sheets
from ..settings import RunSettings
from ..views.dataset import PretrainingData, images_per_process
from ..views.listing import ImageListing, open_listing
from .checkpoints import KeepCheckpoints, checkpoint_step, newest_checkpoint, remove_others, restoring
from .divergence import DivergedError, likely_cause
from .export import export, library_versions
from .forecast import cost_before_start, warn_before_start
from .metrics_file import MetricsFile
from .monitoring import advice, expected_boxes
from .run_folder import RunFolder, RunState
from .schedule import REFERENCE_BATCH, Schedule
from .step import STEPS_LOG, PretrainingModule
from .trainer import build_trainer, further_loggers, launched

LOG = logging.getLogger("ccop_pretrain.training.run")


@dataclass(frozen=True)
class RunResult:
    """Result of a run.

    Attributes:
        out: run folder.
        exported: safetensors file of the network; None if the run was stopped early.
        steps: number of completed steps.
        metrics: last value of every column in metrics.csv.
        stopped_by: signal that stopped the run, if any.
    """

    out: Path
    exported: Path | None
    steps: int
    metrics: dict[str, float]
    stopped_by: signal.Signals | None = None

    @property
    def pictures(self) -> list[Path]:
        """Preview sheets of the run's views and boxes."""
        return sorted(RunFolder(self.out).pictures.glob("*.png"))

    def _repr_html_(self) -> str:
        state = "finished" if self.exported else "stopped: run it again to resume"
        rows = {"state": state, "exported": self.exported or "-", "steps": self.steps}
        rows |= {name: f"{value:.4g}" for name, value in self.metrics.items()}
        return summary_html(str(self.out), rows, self.pictures)

    @property
    def exit_code(self) -> int:
        """0 for a complete run, or 128 + the signal number if stopped, as in shells."""
        return 0 if self.exported is not None else 128 + (self.stopped_by or signal.SIGTERM)


def run(settings: RunSettings, listing: ImageListing | None = None) -> RunResult:
    """Pre-train, or resume an interrupted run with the same settings, then export the network.

    Args:
        settings: the run.
        listing: its images, if they were opened before.

    Raises:
        UserError: the input is invalid (see `check_machine`, `ImageListing.open`, `Schedule.of`, `RunFolder.prepare`),
            another process runs in the folder, the run diverged, or the disk is full.
    """
    check_machine(settings)
    listing = open_listing(settings) if listing is None else listing
    schedule = Schedule.of(settings, len(listing))
    module = PretrainingModule(settings, schedule)
    folder = RunFolder(settings.out)
    metrics = MetricsFile(folder.metrics)
    trainer = build_trainer(settings, schedule, folder, metrics)
    images_per_process(settings, trainer.world_size)
    if not trainer.is_global_zero:
        return _carry_out(settings, listing, schedule, module, folder, metrics, trainer)
    folder.state()  # before the lock creates a folder or a file
    make_folder(settings.out)
    with folder_lock(settings.out):
        return _carry_out(settings, listing, schedule, module, folder, metrics, trainer)


def _carry_out(
    settings: RunSettings,
    listing: ImageListing,
    schedule: Schedule,
    module: PretrainingModule,
    folder: RunFolder,
    metrics: MetricsFile,
    trainer: Trainer,
) -> RunResult:
    """Train in a folder that no other run uses, starting from its last checkpoint, and export the network."""
    # A launcher starts all processes at once, so only the first may modify the folder.
    finished = folder.prepare(settings) is RunState.FINISHED if trainer.is_global_zero else folder.is_finished
    if finished and not settings.overwrite:
        exported = find_weights_file(folder.exported)
        print(f"{folder.path} contains this run, finished; the network is {exported} (--overwrite starts over)")
        return RunResult(folder.path, exported, schedule.steps, metrics.last())
    if trainer.is_global_zero:
        start_logging(folder.log)
    checkpoint = None if settings.overwrite else newest_checkpoint(folder.checkpoints)
    done = checkpoint_step(checkpoint) if checkpoint else 0
    if checkpoint is not None:
        folder.require_same_images(len(listing), listing.digest)
    if trainer.is_global_zero:
        tidy(folder, metrics, listing, settings, done)
        warn(settings, schedule, listing, module)
    announce(settings, schedule, listing, done, trainer.world_size)
    trainer.loggers = [metrics, *further_loggers(settings, folder, done, trainer.is_global_zero)]
    request = stop_request(trainer)
    request.start()  # not only for the steps: Lightning would exit with 1 while it sets up
    try:
        with restoring(checkpoint, trainer):
            trainer.fit(module, datamodule=PretrainingData(listing, settings, schedule.steps), ckpt_path=checkpoint)
    except DivergedError as error:
        if trainer.is_global_zero:
            error.record(folder.diverged, listing.paths)
        raise UserError(diverged(error, settings, folder)) from error
    finally:
        request.end()
    if trainer.global_step < schedule.steps:
        LOG.info("stopped after step %d; rerun the command to resume", trainer.global_step)
        return RunResult(folder.path, None, trainer.global_step, metrics.last(), request.signal)
    finish(trainer, module, settings, schedule, listing, folder)
    # Other processes may get here before the first one has written the file.
    exported = folder.exported / (WEIGHTS_FILE if settings.uses_boxes else BACKBONE_FILE)
    return RunResult(folder.path, exported, schedule.steps, metrics.last())


def check_machine(settings: RunSettings) -> None:
    """Check that this machine supports the settings.

    Raises:
        UserError: fp16 is requested without a GPU, or several machines without a launcher.
    """
    if settings.precision == "fp16" and not torch.cuda.is_available():
        raise UserError("--precision fp16 needs a CUDA GPU: use --precision bf16, or remove the flag")
    if settings.num_nodes > 1 and not launched():
        raise UserError(
            f"--num-nodes {settings.num_nodes} needs a launcher: start the command with torchrun or srun on every "
            "machine"
        )


def tidy(folder: RunFolder, metrics: MetricsFile, listing: ImageListing, settings: RunSettings, done: int) -> None:
    """Restore the folder to its state after step `done`, and write the files that are known before training."""
    for place in (folder.path, folder.exported, folder.pictures):
        remove_temporary_files(place)
    remove_others(folder.checkpoints, until=done)
    metrics.keep_until(done)
    folder.diverged.unlink(missing_ok=True)
    folder.write_images(len(listing), listing.digest)
    folder.write_environment(environment())
    if settings.pictures and not folder.pictures.exists():
        write_sheets(listing, settings, folder.pictures, settings.pictures)


def warn(settings: RunSettings, schedule: Schedule, listing: ImageListing, module: PretrainingModule) -> None:
    """Log warnings about settings that do not suit the data, and about too little memory or disk space."""
    boxes = expected_boxes(listing, settings)
    in_store = 0.0 if listing.proposals is None else listing.proposals.manifest.boxes / len(listing)
    cost = cost_before_start(settings, module.objective, schedule.steps, len(listing), in_store, boxes)
    for warning in (*advice(settings, schedule, len(listing), boxes), *warn_before_start(cost, settings.out)):
        LOG.warning("%s", warning)
    memory = f"{size(cost.device_memory)} of GPU memory" if cost.device_memory else f"{size(cost.memory)} of memory"
    LOG.info("estimate before the first step: at least %s, %s on the disk", memory, size(cost.disk))


def announce(settings: RunSettings, schedule: Schedule, listing: ImageListing, done: int, processes: int) -> None:
    """Log the plan of the run, including all derived numbers."""
    boxes = f", {len(listing.proposals)} of them with proposals" if listing.proposals is not None else ""
    LOG.info("%s, %s: %d images%s", settings.objective, settings.backbone, len(listing), boxes)
    share, parts = settings.batch_size // processes, settings.micro_batches
    LOG.info(
        "%d steps (%d an epoch) of %d images (%s x %d processes)",
        schedule.steps,
        schedule.steps_per_epoch,
        settings.batch_size,
        share if parts == 1 else f"{parts} micro-batches x {share // parts}",
        processes,
    )
    LOG.info(
        "learning rate %.6g = %g x %d / %d, warm-up over %g steps, then cosine to 0",
        schedule.peak_lr,
        settings.lr,
        settings.batch_size,
        REFERENCE_BATCH,
        schedule.warmup_steps,
    )
    if settings.proposals is not None and not settings.uses_boxes:
        use = "only decides the crops" if settings.same_crops else "is ignored"
        LOG.info("no loss uses boxes: --proposals %s", use)
    if done:
        LOG.info("resuming after step %d", done)


def diverged(error: DivergedError, settings: RunSettings, folder: RunFolder) -> str:
    """Build the error message for a diverged run."""
    kept = newest_checkpoint(folder.checkpoints)
    last = f"the checkpoint of step {checkpoint_step(kept)} is kept" if kept else "no checkpoint was saved before"
    return (
        f"{error.what} at step {error.step}: {likely_cause(settings)}, and start over with --overwrite or another "
        f"--out; {folder.diverged} names the images of that step, {last}"
    )


def finish(
    trainer: Trainer,
    module: PretrainingModule,
    settings: RunSettings,
    schedule: Schedule,
    listing: ImageListing,
    folder: RunFolder,
) -> None:
    """Report unreadable images and export the network."""
    found = distributed.gather_rows(torch.tensor(sorted(module.skipped), dtype=torch.long, device=module.device))
    if not trainer.is_global_zero:
        return
    skipped = collect_skipped(listing, set(found.tolist()))
    skipped.write_csv(folder.skipped)
    path = export(folder.exported, module.objective, settings, schedule, listing)
    LOG.info("%s", skipped.summary())
    change = module.probe_change
    if change is not None:
        LOG.log(logging.INFO if change.is_better else logging.WARNING, "kNN probe %s: %s", settings.probe, change)
    LOG.info("exported %s", path)


def collect_skipped(listing: ImageListing, found: set[int]) -> SkippedImages:
    """Collect the images found unreadable in training and those left out of the proposals, with reasons."""
    skipped = SkippedImages()
    known = listing.proposals.skipped if listing.proposals is not None else {}
    for index, name in enumerate(listing.paths):
        if index in found or name in known:
            try:
                listing.read(index)
            except UnreadableImageError as error:
                skipped.add(name, error.reason)
    return skipped


def stop_request(trainer: Trainer) -> StopRequest:
    """Return what notes the signals that stop a run."""
    keeper = trainer.checkpoint_callback
    return keeper.request if isinstance(keeper, KeepCheckpoints) else StopRequest()


def environment() -> dict[str, Any]:
    """Describe the versions, hardware and command line of a run."""
    return {
        "versions": library_versions(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def start_logging(path: Path) -> None:
    """Log to `train.log` and standard error; on a terminal, a progress bar replaces the messages for each step."""
    parent = logging.getLogger("ccop_pretrain")
    parent.setLevel(logging.INFO)
    for handler in list(parent.handlers):
        parent.removeHandler(handler)
        handler.close()
    file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    console = logging.StreamHandler(sys.stderr)
    bar = shows_bars()
    console.addFilter(lambda record: not (bar and record.name == STEPS_LOG.name))
    for handler in (file, console):
        parent.addHandler(handler)
