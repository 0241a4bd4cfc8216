"""Full runs on two processes: micro-batches add up across them, and a signal to either stops both."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from ccop_pretrain.training.checkpoints import newest_checkpoint
from ccop_pretrain.training.run_folder import RunFolder
from torch.testing import assert_close

from ccop_hub.saved_settings import plain

STEPS = 4


@pytest.fixture
def folder(tiny_run, tmp_path):
    """The output of `two_trainers.py`."""
    settings = tiny_run(
        backbone="test_resnet", devices=2, batch_size=8, steps=STEPS, dropout=0.0, jitters=0, log_every=STEPS
    )
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(plain(settings)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = Path(__file__).with_name("two_trainers.py")
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    processes = [
        subprocess.Popen(
            [sys.executable, script, file, tmp_path],
            env={**os.environ, **common, "OMP_NUM_THREADS": "1", "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": "0"},
        )
        for rank in ("0", "1")
    ]
    assert [process.wait(timeout=900) for process in processes] == [0, 0]
    return tmp_path


def weights(path):
    newest = newest_checkpoint(RunFolder(path).checkpoints)
    assert newest.name == f"step-{STEPS:09d}.ckpt"
    return torch.load(newest, weights_only=True)["state_dict"]


def test_micro_batches_add_up_and_a_signal_to_one_process_stops_both(folder):
    stopped = {"whole": 0, "split": 0, "stopped": 128 + signal.SIGTERM, "resumed": 0}
    for rank in (0, 1):
        codes = json.loads((folder / f"codes{rank}.json").read_text())
        assert "would resume from different steps (2, 0)" in codes.pop("apart")
        assert codes == stopped
    whole, split, resumed = (weights(folder / name) for name in ("whole", "split", "stopped"))
    assert (
        "4 steps (1 an epoch) of 8 images (2 micro-batches x 2 x 2 processes)"
        in RunFolder(folder / "split").log.read_text()
    )
    for name in whole:
        if name.endswith("running_mean"):
            assert whole[name].abs().max() == 0, "batch norm was to be fixed"
        assert torch.equal(resumed[name], whole[name]), name
        assert_close(split[name], whole[name], rtol=1e-4, atol=1e-5, msg=lambda said, name=name: f"{name}: {said}")
    assert "stopped after step 2; rerun the command to resume" in RunFolder(folder / "stopped").log.read_text()
