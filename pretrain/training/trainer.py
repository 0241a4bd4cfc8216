"""The Lightning trainer of a run: devices, processes, precision, loggers."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy, Strategy

from ccop_hub.errors import UserError, one_line
from ccop_hub.redaction import redact, redact_parts

from ..settings import RunSettings
from .checkpoints import KeepCheckpoints, WholeFiles
from .forecast import Forecast
from .metrics_file import MetricsFile
from .run_folder import RunFolder
from .schedule import Schedule

LOG = logging.getLogger("ccop_pretrain.training.trainer")

LIGHTNING_PRECISION: dict[str, Any] = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Lightning's names for the precisions; parameters are always float32."""

NOISE = (
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
    ".*your dataloader is not resumable.*",
    ".*`broadcast_buffers` is deprecated.*",
)
"""Lightning warnings about intended behaviour: few workers, a resumed run, a sampler that tracks its position."""


def build_trainer(settings: RunSettings, schedule: Schedule, folder: RunFolder, metrics: MetricsFile) -> Trainer:
    """Build a quiet Lightning trainer that treats the run as a single epoch, so that the step defines its position.

    Raises:
        UserError: Lightning rejects the devices, the number of machines, or the launcher's environment.
    """
    for logger in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    for noise in NOISE:
        warnings.filterwarnings("ignore", message=noise)
    callbacks: list[Callback] = [
        Forecast(schedule.steps),
        KeepCheckpoints(folder.checkpoints, settings.save_every, schedule.steps),
    ]
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
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"--accelerator, --devices or --num-nodes do not match this machine or its launcher ({said}): change them"
        ) from error


def further_loggers(settings: RunSettings, folder: RunFolder, done: int, first: bool) -> list[Logger]:
    """Create the loggers other than metrics.csv; their entries after step `done` are overwritten.

    Args:
        settings: settings of the run.
        folder: run folder.
        done: number of completed steps.
        first: whether this is the process that logs.

    Raises:
        UserError: the package of a requested logger is not installed, or its server cannot be reached.
    """
    loggers: list[Logger] = []
    if settings.tensorboard and not _is_utf8(folder.tensorboard):
        LOG.warning("TensorBoard cannot write to %s, whose name is not UTF-8: its logs are left out", folder.path)
    elif settings.tensorboard:
        where = folder.tensorboard
        loggers.append(TensorBoardLogger(where.parent, name=where.name, version="", purge_step=done + 1))
    if settings.wandb is not None:
        if importlib.util.find_spec("wandb") is None:
            raise UserError("--wandb needs a package that is not installed: pip install wandb")
        where = folder.path
        # Only the first process has a W&B run; the loggers of the others do nothing.
        identifier = folder.wandb_run_id() if first else None
        logger = WandbLogger(project=settings.wandb, name=where.name, save_dir=where, id=identifier)
        if first:
            _start_wandb(logger, settings.wandb)
        loggers.append(logger)
    if settings.mlflow is not None:
        loggers.append(_mlflow(settings.mlflow, folder, first))
    return loggers


def _start_wandb(logger: WandbLogger, project: str) -> None:
    """Start the W&B run, which saves the command line: without the passwords and tokens in its addresses."""
    words = sys.argv
    sys.argv = [redact(word) for word in words]
    try:
        _ = logger.experiment
    except Exception as error:  # as for MLflow
        raise UserError(
            f"--wandb {project}: {one_line(error, 200)}; check `wandb login`, or set WANDB_MODE=offline"
        ) from None
    finally:
        sys.argv = words


def _mlflow(experiment: str, folder: RunFolder, first: bool) -> MLFlowLogger:
    """Log to the MLflow run that an interrupted run began, or to a new one, whose id the first process records."""
    if importlib.util.find_spec("mlflow") is None:
        raise UserError("--mlflow needs a package that is not installed: pip install mlflow-skinny")
    # Not a setting, since an address may contain a password.
    address = os.environ.get("MLFLOW_TRACKING_URI") or f"file:{folder.path.absolute() / 'mlruns'}"
    if address.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # which MLflow 3.17 requires
    try:
        logger = MLFlowLogger(
            experiment_name=experiment,
            run_name=folder.path.name,
            tracking_uri=address,
            run_id=folder.mlflow_run_id(),
        )
        if first:
            folder.write_mlflow_run_id(str(logger.run_id))
    except Exception as error:  # MLflow's exceptions have no base that Lightning's import makes available
        reason = one_line(redact_parts(str(error), address), 200)
        raise UserError(f"--mlflow {experiment}: {reason}; check MLFLOW_TRACKING_URI") from None
    return logger


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def choose_strategy(settings: RunSettings) -> Strategy | str:
    """Choose DDP for several processes, with separate BN statistics in each, as in MoCo and CCOP."""
    several_gpus = settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.device_count() > 1
    alone = settings.devices == 1 or (settings.devices == "auto" and not several_gpus)
    return "auto" if alone and not launched() else DDPStrategy(broadcast_buffers=False)


def launched() -> bool:
    """Return whether torchrun or SLURM started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))) > 1
