"""The folder of one run: what it may start over from, its settings, and its result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric import Fabric

from ccop_hub.console import plain, save_settings, table_console
from ccop_hub.errors import UserError
from ccop_hub.files import replacing

from ..results.comparison import group_results
from ..results.result import RESULT_FILE, Engine, Result
from ..results.tables import print_group
from ..settings import RunSettings
from .environment import hardware, versions

SETTINGS_FILE = "settings.yaml"
STATE_FILE = "state.ckpt"
PICTURES = "pictures"


def lightning_engine() -> Engine:
    """Lightning as the engine of a result."""
    return Engine(name="lightning", version=lightning.__version__)


class RunFolder:
    """An output folder: `settings.yaml`, `state.ckpt` (to resume from), `pictures/`, `result.json`.

    Args:
        fabric: the processes; all of them call this, rank 0 writes.
        settings: the run's settings (`out`, `resume`, `overwrite`, `seed`), written beside its outputs.

    Raises:
        UserError: the folder holds an earlier run and neither `resume` nor `overwrite` was given.
    """

    def __init__(self, fabric: Fabric, settings: RunSettings) -> None:
        self.fabric, self.settings, self.out = fabric, settings, settings.out
        self.state, self.pictures = self.out / STATE_FILE, self.out / PICTURES
        self.main = fabric.global_rank == 0
        self._started = time.monotonic()
        # Rank 0 alone looks, because it alone writes: the others would see what it has just written.
        mistake = fabric.broadcast(self._prepare() if self.main else None)
        if mistake:
            raise UserError(mistake)

    def _prepare(self) -> str | None:
        """Make room; returns what the user did wrong, if anything."""
        if self.out.exists() and not self.out.is_dir():
            return f"{self.out} is a file: give a folder as --out"
        earlier = [name for name in (SETTINGS_FILE, STATE_FILE, RESULT_FILE) if (self.out / name).exists()]
        if earlier and self.settings.overwrite and not self.settings.resume:
            for name in earlier:
                (self.out / name).unlink()
            shutil.rmtree(self.pictures, ignore_errors=True)
        elif earlier and not self.settings.resume:
            return f"{self.out} holds an earlier run: pass --resume to go on with it, or --overwrite to replace it"
        self.pictures.mkdir(parents=True, exist_ok=True)
        save_settings(self.settings, self.out / SETTINGS_FILE)
        return None

    def save_state(self, state: dict[str, Any]) -> None:
        """Write what a run resumes from, atomically: modules, optimizers and plain values (see `Fabric.save`)."""
        # Rank 0 alone writes; the others take part in gathering what is written.
        with replacing(self.state) if self.main else nullcontext(self.state) as file:
            self.fabric.save(file, state)
        self.fabric.barrier()

    def load_state(self, state: dict[str, Any]) -> None:
        """Bring `state` to where the earlier run left off, if `resume` was asked for and there is something.

        Raises:
            UserError: the state is of another run: what stands under `identity` differs.
        """
        if not (self.settings.resume and self.state.exists()):
            return
        identity = state["identity"]
        self.fabric.load(self.state, state)
        if state["identity"] != identity:
            raise UserError(
                f"{self.state} is of another run (other weights, data or protocol): pass --overwrite, or another --out"
            )

    def finish(self, *, packages: Sequence[str] = (), **fields: Any) -> Result:
        """Write `result.json` and print what was measured.

        Args:
            packages: further packages whose versions matter.
            fields: what `Result` needs besides engine, seed, settings, versions, hardware and wall time.
        """
        values = {
            "engine": lightning_engine(),
            "seed": self.settings.seed,
            "settings": plain(self.settings),
            "versions": versions(*packages),
            "hardware": hardware(self.fabric.world_size, self.fabric.device.type),
            "wall_time_s": round(time.monotonic() - self._started, 3),
        }
        result = Result(**{**values, **fields})
        if self.main:
            result.write(self.out / RESULT_FILE)
            announce(result, self.out)
        return result


def announce(result: Result, out: Path) -> None:
    """Print the numbers with protocol id, what was loaded and the effective learning rate, and where they are."""
    console = table_console()
    for group in group_results([result]):
        print_group(console, group)
    rate = "none" if result.effective_lr is None else f"{result.effective_lr:g}"
    console.print(f"protocol {result.protocol}; loaded {result.loaded}; effective lr {rate}", soft_wrap=True)
    console.print(f"wrote {out / RESULT_FILE}; pictures in {out / PICTURES}", soft_wrap=True)
