"""Lightning's own launcher and torchrun on two CPU processes: one command, one run folder, the same bits."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from ccop_pretrain.checkpoints import newest_checkpoint
from ccop_pretrain.run_folder import RunFolder

from ccop_hub.console import plain


@pytest.fixture
def two(tiny_run, tmp_path):
    """Run a command line; it trains on two processes."""
    settings = plain(tiny_run(backbone="test_resnet", devices=2))
    script = tmp_path / "program.py"
    script.write_text("import sys\nfrom ccop_pretrain.cli import main\n\nsys.exit(main())\n")

    def start(launcher, out, **changed):
        file = tmp_path / f"{out}.yaml"
        file.write_text(yaml.safe_dump({**settings, "out": str(tmp_path / out), **changed}))
        done = subprocess.run(
            [sys.executable, *launcher, script, "run", "--config", file],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=200,
        )
        return done, RunFolder(tmp_path / out)

    return start


def weights(folder):
    return torch.load(newest_checkpoint(folder.checkpoints), weights_only=False)["state_dict"]


def test_both_launchers_train_the_same_network_and_go_on_after_a_stop(two):
    done, own = two([], "own")
    assert done.returncode == 0, done.stderr
    log = own.log.read_text()
    assert "5 steps (3 an epoch) of 4 images (2 x 2 processes)" in log
    assert "learning rate 0.0046875 = 0.3 x 4 / 256" in log
    assert json.loads((own.exported / "facts.json").read_text())["steps"] == 5
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done, other = two(torchrun, "torchrun")
    assert done.returncode == 0, done.stderr
    # Back to step 4, as if it had been killed behind it.
    (other.exported / "facts.json").unlink()
    (other.checkpoints / "step-000000005.ckpt").unlink()
    done, _ = two(torchrun, "torchrun")
    assert done.returncode == 0, done.stderr
    assert "going on after step 4" in other.log.read_text()
    first, second = weights(own), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
