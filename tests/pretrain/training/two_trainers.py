"""One of two processes that train several runs together; arguments: SETTINGS.yaml FOLDER; ranks as under torchrun.

Batch norm is fixed and micro-batches draw no random numbers, so that they must add up. Writes the exit codes, and the
message to processes that find different checkpoints.
"""

import dataclasses
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
import yaml
from ccop_pretrain.settings import RunSettings
from ccop_pretrain.training.run import run
from ccop_pretrain.training.step import PretrainingModule

from ccop_hub.errors import UserError

TRAIN = PretrainingModule.training_step


def before_steps(signalled: int | None = None) -> None:
    """Fix batch norm, and send this process SIGTERM once, at the start of step `signalled`."""

    def training_step(self: PretrainingModule, batch: object, batch_idx: int) -> object:
        self.objective.eval()
        if batch_idx == signalled:
            os.kill(os.getpid(), signal.SIGTERM)
        return TRAIN(self, batch, batch_idx)

    PretrainingModule.training_step = training_step


def main(settings_file: str, folder: str) -> None:
    torch.set_num_threads(1)
    given = yaml.safe_load(Path(settings_file).read_text())
    paths = {name: Path(given[name]) for name in ("images", "proposals", "out")}
    tuples = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    settings = RunSettings(**{**given, **paths, **tuples})
    before_steps()
    out = Path(folder)
    codes = {
        "whole": run(dataclasses.replace(settings, out=out / "whole")).exit_code,
        "split": run(dataclasses.replace(settings, out=out / "split", micro_batches=2)).exit_code,
    }
    stopped = dataclasses.replace(settings, out=out / "stopped")
    rank = os.environ["RANK"]
    if rank == "1":
        before_steps(signalled=1)
    codes["stopped"] = run(stopped).exit_code
    before_steps()
    if rank == "0":
        shutil.copytree(out / "stopped", out / "apart0")
    codes["resumed"] = run(stopped).exit_code
    try:
        run(dataclasses.replace(settings, out=out / f"apart{rank}"))
    except UserError as error:
        codes["apart"] = str(error)
    (out / f"codes{rank}.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(*sys.argv[1:])
