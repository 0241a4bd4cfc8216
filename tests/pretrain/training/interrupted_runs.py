"""Runs that are killed or fail, each in a separate process; arguments: SETTINGS.yaml SEED OUT.json.

Writes every run's name and exit status (negative: the signal that ended it). All runs except `whole` share a folder.
"""

import dataclasses
import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import torch
import yaml
from ccop_pretrain.settings import RunSettings
from ccop_pretrain.training import checkpoints, export, run
from ccop_pretrain.training.step import PretrainingModule

from ccop_hub.errors import UserError


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_step(step: int, number: signal.Signals) -> None:
    """Send this process a signal at the start of the given step (counted from 0)."""
    train = PretrainingModule.training_step

    def training_step(self: PretrainingModule, batch: object, batch_idx: int) -> object:
        if batch_idx == step:
            os.kill(os.getpid(), number)
        return train(self, batch, batch_idx)

    PretrainingModule.training_step = training_step


def behind_optimiser(step: int) -> None:
    def on_train_batch_end(self: object, trainer: object, module: object, outputs: object, batch: object, idx: int):
        if idx == step:
            kill()

    checkpoints.KeepCheckpoints.on_train_batch_end = on_train_batch_end


def in_checkpoint_write() -> None:
    """Half of the file has been written."""

    def fsync(descriptor: int) -> None:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        kill()

    os.fsync = fsync


def full_disk() -> None:
    """Limit file sizes to a megabyte: a checkpoint is larger, settings and metrics are smaller."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


def before_facts() -> None:
    export.save_checkpoint = lambda *arguments: kill()


def in_settings() -> None:
    Path.replace = lambda *arguments: kill()


def start(settings: RunSettings, sabotage: object = None) -> int:
    """Fork, so that heavy packages are imported only once."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        if callable(sabotage):
            sabotage()
        code = run.run(settings).exit_code
    except UserError as error:
        print(error, file=sys.stderr)
        code = 2
    finally:
        os._exit(code)
    return 0


def outcome(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(settings_file: str, seed: str, out: str) -> None:
    torch.set_num_threads(1)
    settings = RunSettings(
        **{
            name: Path(value)
            if name in ("images", "proposals", "out")
            else tuple(value)
            if isinstance(value, list)
            else value
            for name, value in yaml.safe_load(Path(settings_file).read_text()).items()
        }
    )
    draw = random.Random(int(seed))
    broken = dataclasses.replace(settings, out=settings.out.with_name("broken"))
    statuses = {"whole": outcome(start(settings)), "settings": outcome(start(broken, in_settings))}
    statuses["step"] = outcome(start(broken, lambda: before_step(draw.randrange(0, 3), signal.SIGKILL)))
    statuses["write"] = outcome(start(broken, in_checkpoint_write))
    statuses["optimiser"] = outcome(start(broken, lambda: behind_optimiser(draw.randrange(2, 4))))
    statuses["sigterm"] = outcome(start(broken, lambda: before_step(4, signal.SIGTERM)))
    statuses["after_sigterm"] = max(
        checkpoints.checkpoint_step(path) for path in (broken.out / "checkpoints").iterdir()
    )
    statuses["disk"] = outcome(start(broken, full_disk))
    child = start(broken)
    time.sleep(draw.uniform(0.2, 2.0))
    os.kill(child, signal.SIGKILL)
    statuses["any_moment"] = outcome(child)
    # A run that finished before the signal cannot be interrupted any more.
    statuses["export"] = outcome(start(broken, before_facts))
    statuses["last"] = outcome(start(broken))
    Path(out).write_text(json.dumps(statuses))


if __name__ == "__main__":
    main(*sys.argv[1:])
