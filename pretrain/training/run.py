"""One pre-training run, from a folder of images to an exported network."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy, Strategy

from ccop_hub.errors import UserError
from ccop_hub.images import UnreadableImageError

from ..common import distributed
from ..images.skipped import SkippedImages
from ..look.inspection import write_sheets
from ..settings import RunSettings
from ..views.dataset import PretrainingData, images_per_process
from ..views.listing import ImageListing
from .checkpoints import KeepCheckpoints, WholeFiles, checkpoint_step, newest_checkpoint, remove_others
from .export import export, library_versions
from .metrics_file import MetricsFile
from .monitoring import advice, expected_boxes
from .run_folder import RunFolder, RunState
from .schedule import REFERENCE_BATCH, Schedule
from .step import STEPS_LOG, PretrainingModule

LOG = logging.getLogger("ccop_pretrain.training.run")

LIGHTNING_PRECISION: dict[str, Any] = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Lightning's names of the precisions: parameters are float32 in each."""

NOISE = (
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
    ".*your dataloader is not resumable.*",
    ".*`broadcast_buffers` is deprecated.*",
)
"""Lightning's warnings of things that are meant: few readers, a run that goes on, a position that our sampler keeps."""


def run(settings: RunSettings) -> int:
    """Pre-train, or go on where an interrupted run of the same settings stopped; then export.

    Returns:
        The exit code, 0.

    Raises:
        UserError: wrong input; see `check_machine`, `ImageListing.open`, `Schedule.of`, `RunFolder.prepare`.
    """
    check_machine(settings)
    listing = ImageListing.open(
        settings.images, settings.proposals if settings.uses_boxes else None, settings, exclude=[settings.out]
    )
    schedule = Schedule.of(settings, len(listing))
    module = PretrainingModule(settings, schedule)
    folder = RunFolder(settings.out)
    metrics = MetricsFile(folder.metrics)
    trainer = build_trainer(settings, schedule, folder, metrics)
    images_per_process(settings, trainer.world_size)
    # Under a launcher all processes come here at once: the first alone changes the folder, the others look on.
    finished = folder.prepare(settings) is RunState.FINISHED if trainer.is_global_zero else folder.is_finished
    if finished and not settings.overwrite:
        print(f"{folder.path} holds this run, finished: nothing to do (--overwrite starts anew)")
        return 0
    if trainer.is_global_zero:
        start_logging(folder.log)
    checkpoint = None if settings.overwrite else newest_checkpoint(folder.checkpoints)
    done = checkpoint_step(checkpoint) if checkpoint else 0
    if trainer.is_global_zero:
        remove_others(folder.checkpoints, until=done)
        metrics.keep_until(done)
        folder.write_environment(environment())
        if settings.pictures and not folder.pictures.exists():
            write_sheets(listing, settings, folder.pictures, settings.pictures)
    announce(settings, schedule, listing, done, trainer.world_size)
    if trainer.is_global_zero:
        for warning in advice(settings, schedule, len(listing), expected_boxes(listing, settings)):
            LOG.warning("%s", warning)
    trainer.loggers = [metrics, *further_loggers(settings, folder, done, trainer.is_global_zero)]
    trainer.fit(
        module,
        datamodule=PretrainingData(listing, settings, schedule.steps),
        ckpt_path=checkpoint,
        # Checkpoints are our own files and hold more than tensors (Lightning's progress counters).
        weights_only=False,
    )
    if trainer.global_step < schedule.steps:
        LOG.info("stopped after step %d; rerun the command to resume", trainer.global_step)
        return exit_code(trainer)
    finish(trainer, module, settings, schedule, listing, folder)
    return 0


def check_machine(settings: RunSettings) -> None:
    """Refuse what this machine cannot do.

    Raises:
        UserError: fp16 without a GPU, or several machines without a launcher.
    """
    if settings.precision == "fp16" and not torch.cuda.is_available():
        raise UserError("--precision fp16 needs a CUDA GPU: give --precision bf16, or leave it out")
    if settings.num_nodes > 1 and not launched():
        raise UserError(
            f"--num-nodes {settings.num_nodes} needs a launcher on every machine: start the command with torchrun or "
            "srun"
        )


def build_trainer(settings: RunSettings, schedule: Schedule, folder: RunFolder, metrics: MetricsFile) -> Trainer:
    """A quiet Lightning trainer that sees the whole run as one epoch, so that its position is the step alone.

    Raises:
        UserError: Lightning refuses the devices, the machines, or what a launcher says of them.
    """
    for logger in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    for noise in NOISE:
        warnings.filterwarnings("ignore", message=noise)
    callbacks: list[Callback] = [KeepCheckpoints(folder.checkpoints, settings.save_every, schedule.steps)]
    on_terminal = sys.stderr.isatty()
    if on_terminal:
        callbacks.append(RichProgressBar())
    try:
        return Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=choose_strategy(settings),
            precision=LIGHTNING_PRECISION[settings.precision],
            max_steps=schedule.steps,
            max_epochs=1,
            logger=metrics,
            callbacks=callbacks,
            plugins=[WholeFiles()],
            enable_progress_bar=on_terminal,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"--accelerator, --devices or --num-nodes do not fit this machine or its launcher: {said}"
        ) from error


def further_loggers(settings: RunSettings, folder: RunFolder, done: int, first: bool) -> list[Logger]:
    """Loggers beside metrics.csv; what they hold of steps past `done` will be written again.

    Args:
        settings: of the run.
        folder: of the run.
        done: steps done.
        first: whether this is the process that logs.

    Raises:
        UserError: W&B is asked for and not installed.
    """
    loggers: list[Logger] = []
    if settings.tensorboard:
        where = folder.tensorboard
        loggers.append(TensorBoardLogger(where.parent, name=where.name, version="", purge_step=done + 1))
    if settings.wandb is not None:
        if importlib.util.find_spec("wandb") is None:
            raise UserError("--wandb needs a package that is not installed: pip install wandb")
        where = folder.path
        # Only the first process has a run there; the others' loggers do nothing.
        identifier = folder.wandb_run_id() if first else None
        loggers.append(WandbLogger(project=settings.wandb, name=where.name, save_dir=where, id=identifier))
    return loggers


def choose_strategy(settings: RunSettings) -> Strategy | str:
    """DDP where several processes train; every process keeps its own BN statistics, as MoCo's and CCOP's do."""
    several_gpus = settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.device_count() > 1
    alone = settings.devices == 1 or (settings.devices == "auto" and not several_gpus)
    return "auto" if alone and not launched() else DDPStrategy(broadcast_buffers=False)


def launched() -> bool:
    """Whether torchrun or SLURM started this process among others."""
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))) > 1


def announce(settings: RunSettings, schedule: Schedule, listing: ImageListing, done: int, processes: int) -> None:
    """Say what is about to happen, with every number that was derived."""
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
        LOG.info("no loss looks at boxes: --proposals is not used")
    if done:
        LOG.info("going on after step %d", done)


def finish(
    trainer: Trainer,
    module: PretrainingModule,
    settings: RunSettings,
    schedule: Schedule,
    listing: ImageListing,
    folder: RunFolder,
) -> None:
    """Report unreadable images, export."""
    met = distributed.gather_rows(torch.tensor(sorted(module.skipped), dtype=torch.long, device=module.device))
    if not trainer.is_global_zero:
        return
    skipped = collect_skipped(listing, set(met.tolist()))
    skipped.write_csv(folder.skipped)
    path = export(folder.exported, module.objective, settings, schedule, listing)
    LOG.info("%s", skipped.summary())
    LOG.info("exported %s", path)


def collect_skipped(listing: ImageListing, met: set[int]) -> SkippedImages:
    """Unreadable images by name and reason: those met, and those already left out of the proposals."""
    skipped = SkippedImages()
    known = listing.proposals.skipped if listing.proposals is not None else {}
    for index, name in enumerate(listing.paths):
        if index in met or name in known:
            try:
                listing.read(index)
            except UnreadableImageError as error:
                skipped.add(name, error.reason)
    return skipped


def exit_code(trainer: Trainer) -> int:
    """The exit code of a run that was asked to stop: 128 + the signal's number, as shells have it."""
    keeper = trainer.checkpoint_callback
    number = keeper.stopped_by if isinstance(keeper, KeepCheckpoints) else None
    return 128 + (number or signal.SIGTERM)


def environment() -> dict[str, Any]:
    """Versions, hardware and the command line of a run."""
    return {
        "versions": library_versions(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def start_logging(path: Path) -> None:
    """Send what the program says to `train.log` and to standard error; steps have a progress bar on a terminal."""
    parent = logging.getLogger("ccop_pretrain")
    parent.setLevel(logging.INFO)
    for handler in list(parent.handlers):
        parent.removeHandler(handler)
        handler.close()
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    console = logging.StreamHandler(sys.stderr)
    on_terminal = sys.stderr.isatty()
    console.addFilter(lambda record: not (on_terminal and record.name == STEPS_LOG.name))
    for handler in (file, console):
        parent.addHandler(handler)
