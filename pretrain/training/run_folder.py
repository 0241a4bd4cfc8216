"""The folder of one run: where everything is, and whether a run may start, resume, or has finished."""

from __future__ import annotations

import enum
import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccop_hub.errors import UserError, one_line
from ccop_hub.files import check_folder, is_temporary, make_folder, write_atomically
from ccop_hub.formats.checkpoint import FACTS_FILE
from ccop_hub.regular_files import read_regular
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
    | {"tensorboard", "wandb", "probe", "probe_every"}
)
"""Settings that may differ when a run is resumed. Its weights do not depend on them, except on machines and processes,
which may change while a job waits in a queue."""


class RunState(enum.Enum):
    """What a folder contains before a run."""

    NEW = "new"
    UNFINISHED = "unfinished"
    FINISHED = "finished"


@dataclass(frozen=True)
class RunFolder:
    """Names of everything in a run's folder.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def settings(self) -> Path:
        """The resolved settings."""
        return self.path / "settings.yaml"

    @property
    def environment(self) -> Path:
        """Versions and hardware."""
        return self.path / "environment.json"

    @property
    def log(self) -> Path:
        """What the run said, with times."""
        return self.path / "train.log"

    @property
    def metrics(self) -> Path:
        """A row per logged step."""
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """Everything needed to resume; the last two are kept."""
        return self.path / "checkpoints"

    @property
    def exported(self) -> Path:
        """The network that the run was for."""
        return self.path / "exported"

    @property
    def pictures(self) -> Path:
        """Picture sheets of what the run sees."""
        return self.path / "pictures"

    @property
    def tensorboard(self) -> Path:
        """What `tensorboard --logdir` shows: the figures of metrics.csv."""
        return self.path / "tensorboard"

    @property
    def wandb(self) -> Path:
        """Holds the identifier of the run at Weights & Biases, so that a resumed run continues there too."""
        return self.path / "wandb_run_id.txt"

    @property
    def skipped(self) -> Path:
        """Unreadable images and why."""
        return self.path / "skipped.csv"

    @property
    def images(self) -> Path:
        """How many images the run trains on, and the digest of their listing."""
        return self.path / "images.json"

    @property
    def diverged(self) -> Path:
        """The step in which a run diverged and the images of its batch; not there otherwise."""
        return self.path / "diverged.json"

    def prepare(self, settings: RunSettings) -> RunState:
        """Look at what is there, clear it where the settings say so, and write the settings.

        Returns:
            `NEW` for a run from the beginning, `UNFINISHED` for one to resume, `FINISHED` if there is nothing to do.

        Raises:
            UserError: the folder contains something else, a run with other settings, or a run and `resume` is off.
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
        """The identifier of the run at Weights & Biases; drawn at the first call, by the operating system."""
        if not self.wandb.is_file():
            write_atomically(self.wandb, f"{secrets.token_hex(4)}\n")
        return self.wandb.read_text(encoding="utf-8").strip()

    def write_environment(self, facts: dict[str, Any]) -> None:
        """Write `environment.json`."""
        write_atomically(self.environment, json.dumps(facts, indent=2) + "\n")

    def write_images(self, count: int, digest: str) -> None:
        """Write `images.json`."""
        write_atomically(self.images, json.dumps({"images": count, "digest": digest}, indent=2) + "\n")

    def require_same_images(self, count: int, digest: str) -> None:
        """Check that a resumed run trains on the images that it began with. Folders without a record pass.

        Raises:
            UserError: images were added, removed or renamed.
        """
        if not self.images.is_file():
            return
        try:
            before = json.loads(read_regular(self.images))
            same = before["digest"] == digest
            before["images"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
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
        """What the folder holds.

        Raises:
            UserError: it is a folder of something else, or there can be no folder.
        """
        if not self.path.is_dir():
            check_folder(self.path)
            return RunState.NEW
        # A run killed while it wrote its settings leaves no more than a hidden part of them.
        if all(map(is_temporary, self.path.iterdir())):
            return RunState.NEW
        if not self.settings.is_file():
            raise UserError(f"{self.path} contains something that is not a run; give --out a new or an empty folder")
        if self.is_finished:
            return RunState.FINISHED
        # Without a checkpoint there is nothing to resume: a failed start must not stand in the way of the next one.
        return RunState.UNFINISHED if any(self.checkpoints.glob("*.ckpt")) else RunState.NEW

    @property
    def is_finished(self) -> bool:
        """Whether the network is exported: its facts are the last file that a run writes."""
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
