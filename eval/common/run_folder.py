"""A run's output folder: settings, resumable state and result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

import lightning
import torch
from lightning.fabric import Fabric

from ccop_hub.console.errors import describe_os_error
from ccop_hub.errors import UserError, one_line
from ccop_hub.files import check_folder, make_folder, replacing
from ccop_hub.locks import folder_lock
from ccop_hub.saved_settings import differences, plain, read_settings, save_settings

from ..results.result import RESULT_FILE, Engine, Result
from ..settings import RunSettings, VisualizeSettings
from .environment import hardware, versions

SETTINGS_FILE = "settings.yaml"
STATE_FILE = "state.ckpt"
PICTURES = "pictures"

_PLAIN = (int, float, str, list, dict)
"""Types of the values in a state that are neither modules nor optimizers."""

_ADDED = ("losses", "step", "totals")
"""Values that the states of earlier versions lack; they keep their initial values."""

MAY_DIFFER = frozenset(
    {
        *("out", "resume", "overwrite", "accelerator", "devices", "num_nodes", "node_rank", "dist_url"),
        *("workers", "cache", "save_every", "eval_only"),
    }
)
"""Settings that may change on resume: they affect where and how fast a run computes, not its result."""


def lightning_engine() -> Engine:
    """Describe Lightning as a result's engine."""
    return Engine(name="lightning", version=lightning.__version__)


class RunFolder:
    """A run's output folder: `settings.yaml`, `state.ckpt` (to resume from), `pictures/` and `result.json`.

    It is locked until the end of the `with` block that it is used in.

    Args:
        fabric: the processes; all of them call this, rank 0 writes.
        settings: the run's settings (`out`, `resume`, `overwrite`, `seed`), saved to `settings.yaml`.

    Attributes:
        finished: this run's result if an earlier call finished it, in which case there is nothing left to do.

    Raises:
        UserError: another process is running in the folder, or it contains a run with different settings, or any run if
            `resume` is off.
    """

    def __init__(self, fabric: Fabric, settings: RunSettings) -> None:
        self.fabric, self.settings, self.out = fabric, settings, settings.out
        self.state, self.pictures = self.out / STATE_FILE, self.out / PICTURES
        self.main = fabric.global_rank == 0
        self._started = time.monotonic()
        self._lock = ExitStack()
        # Only rank 0 checks: the others might see files that it has just written.
        mistake, self.finished = fabric.broadcast(self._prepare() if self.main else (None, None))
        if mistake:
            self._lock.close()
            raise UserError(mistake)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.close()

    def _prepare(self) -> tuple[str | None, Result | None]:
        """Prepare the folder; returns the user's mistake, if any, and the result of a finished run."""
        try:
            check_folder(self.out)
            make_folder(self.out)
            self._lock.enter_context(folder_lock(self.out))
            finished = None if self.settings.overwrite else self._look()
            if finished is None:
                self._make()
        except UserError as error:
            return str(error), None
        except OSError as error:  # returned, not raised: the other processes are waiting for the broadcast
            return describe_os_error(error), None
        return None, finished

    def _make(self) -> None:
        """Remove anything that cannot be resumed, and write the settings."""
        if self.settings.overwrite or not self.state.exists():
            for name in (SETTINGS_FILE, STATE_FILE, RESULT_FILE):
                (self.out / name).unlink(missing_ok=True)
            shutil.rmtree(self.pictures, ignore_errors=True)
        make_folder(self.pictures)
        save_settings(self.settings, self.out / SETTINGS_FILE)

    def _look(self) -> Result | None:
        """Return this run's result if the folder contains it.

        A folder with neither a result nor a state is free to use, so a failed start does not block the next one.
        """
        if not (self.out / RESULT_FILE).exists() and not self.state.exists():
            return None
        if not self.settings.resume:
            raise UserError(
                f"{self.out} contains a run already: remove --no-resume to resume it, give --overwrite to replace it, "
                "or another --out"
            )
        if (self.out / SETTINGS_FILE).exists():
            require_same(self.out, self.settings)
        if not (self.out / RESULT_FILE).exists():
            return None
        print(f"{self.out} contains this run, finished: nothing to do (--overwrite starts over)")
        return Result.read(self.out)

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the state to resume from, atomically: modules, optimizers and plain values (see `Fabric.save`).

        Raises:
            UserError: a tensor of a module is NaN or infinite; the earlier state is kept.
        """
        for value in state.values():
            if isinstance(value, torch.nn.Module):
                _require_finite(value)
        # Only rank 0 writes, but gathering the state is collective.
        with replacing(self.state) if self.main else nullcontext(self.state) as file:
            self.fabric.save(file, state)
        self.fabric.barrier()

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state` from an earlier run, if any.

        Raises:
            UserError: the state belongs to another run (its `identity` differs), is corrupt, or contains anything
                but tensors and plain values, which could execute code.
        """
        if not self.state.exists():
            return
        identity = state["identity"]
        plain_types = {name: type(value) for name, value in state.items() if isinstance(value, _PLAIN)}
        try:
            try:
                self.fabric.load(self.state, state)
            except KeyError:
                earlier = {name: value for name, value in state.items() if name not in _ADDED}
                self.fabric.load(self.state, earlier)
                state.update(earlier)
            for name, kind in plain_types.items():
                if not isinstance(state[name], kind):
                    raise TypeError(f"{name} is a {type(state[name]).__name__}, not a {kind.__name__}")
        except (LookupError, ValueError, RuntimeError, TypeError, AttributeError, AssertionError) as error:
            raise UserError(
                f"{self.state} is not a state of this run ({one_line(error)}): give --overwrite to start over"
            ) from error
        if state["identity"] != identity:
            changed = [name for name, value in identity.items() if state["identity"].get(name) != value]
            raise UserError(
                f"{self.state} is of a run of other {', '.join(changed)}: give --overwrite to start over, or another "
                "--out"
            )

    def finish(self, *, packages: Sequence[str] = (), **fields: Any) -> Result:
        """Write `result.json`.

        Args:
            packages: more packages whose versions to record.
            fields: the fields of `Result` except engine, seed, settings, versions, hardware and wall time.
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
        return result


def _require_finite(module: torch.nn.Module) -> None:
    for name, value in module.state_dict().items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"training diverged: {name} is not finite; use a lower --lr, or other weights")


def require_same(out: Path, settings: RunSettings | VisualizeSettings) -> None:
    """Refuse to resume a run with different settings.

    Raises:
        UserError: a setting differs; the message lists every such setting with both values.
    """
    changed = differences(read_settings(out / SETTINGS_FILE), settings, MAY_DIFFER)
    if changed:
        raise UserError(
            f"{out} contains a run with other settings: {', '.join(changed)}; give --overwrite to replace it, or "
            "another "
            "--out"
        )
