"""The folder of a run: its files, and whether the run is new, can be resumed, or is finished."""

from __future__ import annotations

import enum
import json
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccop_hub.errors import UserError, one_line
from ccop_hub.files import check_folder, is_temporary, make_folder, write_atomically
from ccop_hub.formats.weights_files import FACTS_FILE
from ccop_hub.locks import LOCK_FILE
from ccop_hub.regular_files import read_json, read_text
from ccop_hub.saved_settings import differences, read_settings, save_settings

from ..settings import RunSettings

SETTINGS_THAT_MAY_CHANGE = frozenset(
    {
        "out",
        "devices",
        "num_nodes",
        "accelerator",
        "workers",
        "log_every",
        "save_every",
        "pictures",
        "resume",
        "overwrite",
        "max_unreadable",
    }
    | {"tensorboard", "wandb", "mlflow", "probe", "probe_every"}
)
"""Settings that may change when a run is resumed. They do not affect the weights, except for the number of machines and
processes, which may change between jobs on a cluster."""


_IDENTIFIER = re.compile(r"[0-9A-Za-z_-]{1,64}")


class RunState(enum.Enum):
    """State of a run folder."""

    NEW = "new"
    UNFINISHED = "unfinished"
    FINISHED = "finished"


@dataclass(frozen=True)
class RunFolder:
    """Paths of the files in a run folder.

    Attributes:
        path: run folder.
    """

    path: Path

    @property
    def settings(self) -> Path:
        """Resolved settings."""
        return self.path / "settings.yaml"

    @property
    def environment(self) -> Path:
        """Versions and hardware."""
        return self.path / "environment.json"

    @property
    def log(self) -> Path:
        """Log messages with timestamps."""
        return self.path / "train.log"

    @property
    def metrics(self) -> Path:
        """Metrics, one row per logged step."""
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """Folder of the last two checkpoints, with everything needed to resume."""
        return self.path / "checkpoints"

    @property
    def exported(self) -> Path:
        """Folder of the exported network."""
        return self.path / "exported"

    @property
    def pictures(self) -> Path:
        """Folder of preview sheets."""
        return self.path / "pictures"

    @property
    def tensorboard(self) -> Path:
        """The metrics as TensorBoard logs, for `tensorboard --logdir`."""
        return self.path / "tensorboard"

    @property
    def wandb(self) -> Path:
        """Weights & Biases run id, so that a resumed run continues the same W&B run."""
        return self.path / "wandb_run_id.txt"

    @property
    def mlflow(self) -> Path:
        """MLflow run id, so that a resumed run continues the same MLflow run."""
        return self.path / "mlflow_run_id.txt"

    @property
    def skipped(self) -> Path:
        """Unreadable images, with reasons."""
        return self.path / "skipped.csv"

    @property
    def images(self) -> Path:
        """Number of training images and digest of their listing."""
        return self.path / "images.json"

    @property
    def diverged(self) -> Path:
        """Step in which the run diverged and the images in its batch; only exists if it did."""
        return self.path / "diverged.json"

    def prepare(self, settings: RunSettings) -> RunState:
        """Check the folder's state, clear it if the settings say so, and write the settings.

        Returns:
            `NEW` to start from scratch, `UNFINISHED` to resume, `FINISHED` if there is nothing to do.

        Raises:
            UserError: the folder contains other files, a run with different settings, or any run if `resume` is off.
        """
        state = self.state()
        if state is not RunState.NEW and not settings.resume and not settings.overwrite:
            raise UserError(
                f"{self.path} contains a run already: remove --no-resume to resume it, give --overwrite to start over, "
                "or another --out"
            )
        if settings.overwrite:
            state = RunState.NEW
        if state is RunState.NEW:
            self._clear()
        else:
            self._require_same(settings)
        if state is not RunState.FINISHED:
            make_folder(self.path)
            save_settings(settings, self.settings)
        return state

    def wandb_run_id(self) -> str:
        """Return the Weights & Biases run id, generated on the first call from the operating system's randomness."""
        if not self.wandb.exists():
            write_atomically(self.wandb, f"{secrets.token_hex(4)}\n")
        return _identifier(self.wandb)

    def mlflow_run_id(self) -> str | None:
        """Return the MLflow run id of an earlier start of this run, if any."""
        return _identifier(self.mlflow) if self.mlflow.exists() else None

    def write_mlflow_run_id(self, identifier: str) -> None:
        """Record the MLflow run id."""
        write_atomically(self.mlflow, f"{identifier}\n")

    def write_environment(self, facts: dict[str, Any]) -> None:
        """Write `environment.json`."""
        write_atomically(self.environment, json.dumps(facts, indent=2) + "\n")

    def write_images(self, count: int, digest: str) -> None:
        """Write `images.json`."""
        write_atomically(self.images, json.dumps({"images": count, "digest": digest}, indent=2) + "\n")

    def require_same_images(self, count: int, digest: str) -> None:
        """Check that a resumed run trains on the same images as before. Folders without `images.json` pass.

        Raises:
            UserError: images were added, removed or renamed.
        """
        if not self.images.is_file():
            return
        try:
            before = read_json(self.images)
            same = before["digest"] == digest
            before["images"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{self.images} is damaged ({one_line(error)}): delete it to resume without this check"
            ) from None
        if not same:
            change = f"began with {before['images']} images and would resume with {count}"
            if before["images"] == count:
                change = f"began with {count} images, and some of them have other names now"
            raise UserError(
                f"the run in {self.path} {change}: restore the images to resume, or give --overwrite to start over"
            )

    def state(self) -> RunState:
        """Determine the state of the run from the folder's contents.

        Raises:
            UserError: the folder contains other files, or cannot be created.
        """
        if not self.path.is_dir():
            check_folder(self.path)
            return RunState.NEW
        # A run killed while writing its settings only leaves a lock file and a hidden temporary file.
        if all(is_temporary(path) or path.name == LOCK_FILE for path in self.path.iterdir()):
            return RunState.NEW
        if not self.settings.is_file():
            raise UserError(f"{self.path} contains something that is not a run; give --out a new or an empty folder")
        if self.is_finished:
            return RunState.FINISHED
        # Without a checkpoint there is nothing to resume, and a failed start should not block the next one.
        return RunState.UNFINISHED if any(self.checkpoints.glob("*.ckpt")) else RunState.NEW

    @property
    def is_finished(self) -> bool:
        """Whether the network has been exported; its facts are the last file that a run writes."""
        return (self.exported / FACTS_FILE).is_file()

    def _clear(self) -> None:
        for folder in (self.checkpoints, self.exported, self.pictures, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (
            self.settings,
            self.environment,
            self.log,
            self.metrics,
            self.skipped,
            self.wandb,
            self.mlflow,
            self.images,
            self.diverged,
        ):
            file.unlink(missing_ok=True)

    def _require_same(self, settings: RunSettings) -> None:
        changed = differences(read_settings(self.settings), settings, SETTINGS_THAT_MAY_CHANGE)
        if changed:
            raise UserError(
                f"{self.path} contains a run with other settings: {', '.join(changed)}; "
                "give another --out, or --overwrite to start over"
            )


def _identifier(path: Path) -> str:
    """Read a run id of Weights & Biases or MLflow."""
    try:
        identifier = read_text(path, limit=1000).strip()
    except (OSError, UnicodeDecodeError):
        identifier = ""
    if not _IDENTIFIER.fullmatch(identifier):
        raise UserError(f"{path} does not contain a run id: delete it to log to a new run there")
    return identifier
