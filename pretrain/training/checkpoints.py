"""Checkpoints of a run: written atomically, keeping the last two, and saved when the run is asked to stop."""

from __future__ import annotations

import contextlib
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from ccop_hub.errors import UserError, one_line
from ccop_hub.files import make_folder, remove_temporary_files, replacing
from ccop_hub.formats.training_state import read_training_state
from ccop_hub.regular_files import open_regular
from ccop_hub.stopping import StopRequest

from ..common import distributed
from .divergence import require_finite_state

LOG = logging.getLogger("ccop_pretrain.training.checkpoints")

KEPT = 2
"""Number of checkpoints to keep; the second is a fallback if the newest is damaged."""


_REMEDY = "delete it to resume from the checkpoint before, or give --overwrite to start over"


class WholeFiles(TorchCheckpointIO):
    """Writes each checkpoint to a temporary file in its folder, flushes and renames it; only loads plain contents.

    Lightning's class writes to the system's temporary folder, which may be on another file system, where moving the
    file is a copy and not atomic.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write one file.

        Raises:
            UserError: the file cannot be written, e.g. because the disk is full; earlier checkpoints are kept.
        """
        path = Path(path)
        make_folder(path.parent)
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
        except UserError as error:
            raise UserError(f"{error}; rerun the command to resume from the previous checkpoint") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load one file onto the CPU, accepting only tensors and plain values, since other objects could run code.

        Raises:
            UserError: the file contains other objects, or values that are not finite, or is damaged.
        """
        state = read_training_state(Path(path), _REMEDY, map_location or "cpu")
        # Without the counters of its loops, Lightning would begin at step 0 with trained weights.
        if not isinstance(state.get("loops"), dict):
            raise UserError(f"{path} does not say how far the run got: {_REMEDY}")
        tensors = state.get("state_dict")
        for name, value in tensors.items() if isinstance(tensors, dict) else ():
            if isinstance(value, torch.Tensor) and value.is_floating_point() and not value.isfinite().all():
                raise UserError(f"{name} in {path} is not finite: {_REMEDY}")
        return state


class KeepCheckpoints(Checkpoint):
    """Saves a checkpoint every `every` steps, at the last step, and when a stop signal arrives.

    Non-finite values are never saved, so the last checkpoint of a diverged run remains usable.

    Args:
        folder: folder of checkpoints.
        every: steps between checkpoints.
        steps: total steps of the run.

    Attributes:
        started: whether training has started, so that any checkpoint has been restored.
        request: the stop signal noted by this process, if any; started and ended by the run.
    """

    def __init__(self, folder: Path, every: int, steps: int) -> None:
        self.folder = folder
        self.every = every
        self.steps = steps
        self.started = False
        self.request = StopRequest()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's signal handlers, which would end the run without a checkpoint.

        Raises:
            UserError: the processes found different checkpoints.
        """
        steps = distributed.gather_rows(torch.tensor([trainer.global_step], device=pl_module.device)).tolist()
        if len(set(steps)) > 1:
            raise UserError(
                f"the processes would resume from different steps ({', '.join(map(str, steps))}): all machines must "
                f"share the folder {self.folder.parent}"
            )
        self.started = True
        self.request.start()
        trainer._signal_connector.received_sigterm = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a checkpoint if one is due, and stop if any process was signalled.

        Raises:
            DivergedError: the state to save is not finite.
        """
        done = trainer.global_step
        stop = distributed.any_process(self.request.signal is not None, pl_module.device)
        if stop or done % self.every == 0 or done == self.steps:
            require_finite_state(done, pl_module, batch.indices)
            trainer.save_checkpoint(self.folder / f"step-{done:09d}.ckpt")
            if trainer.is_global_zero:
                remove_others(self.folder, keep=KEPT)
        if stop:
            trainer.should_stop = True


@contextlib.contextmanager
def restoring(checkpoint: Path | None, trainer: Trainer) -> Iterator[None]:
    """Name the checkpoint in errors that occur while it is restored, until training starts.

    Raises:
        UserError: the checkpoint does not have the form that this run writes.
    """
    try:
        yield
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, AssertionError) as error:
        keeper = trainer.checkpoint_callback
        if checkpoint is None or not isinstance(keeper, KeepCheckpoints) or keeper.started:
            raise
        raise UserError(f"{checkpoint} is not a checkpoint of this run ({one_line(error)}): {_REMEDY}") from error


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest valid checkpoint of a run, skipping damaged ones with a warning."""
    for path in _by_age(folder):
        try:
            with open_regular(path) as file, zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
        except (OSError, zipfile.BadZipFile) as error:
            damaged = str(error)
        if damaged is None:
            return path
        LOG.warning("%s is damaged (%s); taking the one before", path, damaged)
    return None


def checkpoint_step(path: Path) -> int:
    """Parse the number of completed steps from a checkpoint name such as `step-000000500.ckpt`."""
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isdigit() else -1


def remove_others(folder: Path, keep: int = KEPT, until: int | None = None) -> None:
    """Remove all but the `keep` newest checkpoints, those after step `until`, and leftovers of interrupted writes.

    Args:
        folder: folder of checkpoints; may not exist.
        keep: number of checkpoints to keep.
        until: step that the run resumes from; later checkpoints are damaged and will be rewritten.
    """
    later = [path for path in _by_age(folder) if until is not None and checkpoint_step(path) > until]
    others = [path for path in _by_age(folder) if path not in later][keep:]
    for path in [*later, *others]:
        path.unlink(missing_ok=True)
    remove_temporary_files(folder)


def _by_age(folder: Path) -> list[Path]:
    """List checkpoints, newest first."""
    return sorted(folder.glob("step-*.ckpt"), key=checkpoint_step, reverse=True)
