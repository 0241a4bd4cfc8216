"""Lightning's launcher and torchrun, for one and two machines, give bit-identical results on two CPU processes."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
import yaml
from ccop_pretrain.training.checkpoints import newest_checkpoint
from ccop_pretrain.training.run_folder import RunFolder

from ccop_hub.saved_settings import plain


@pytest.fixture
def two(tiny_run, tmp_path):
    """Run a command under all given launchers at once; together they train on two processes."""
    settings = plain(tiny_run(backbone="test_resnet", devices=2))
    script = tmp_path / "program.py"
    script.write_text("import sys\nfrom ccop_pretrain.cli import main\n\nsys.exit(main())\n")

    def start(launchers, out, **changed):
        file = tmp_path / f"{out}.yaml"
        file.write_text(yaml.safe_dump({**settings, "out": str(tmp_path / out), **changed}))
        started = [
            subprocess.Popen(
                [sys.executable, *launcher, script, "run", "--config", file],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
                text=True,
            )
            for launcher in launchers
        ]
        said = [process.communicate(timeout=900)[1] for process in started]
        assert [process.returncode for process in started] == [0] * len(started), "\n".join(said)
        return RunFolder(tmp_path / out)

    return start


def weights(folder):
    return torch.load(newest_checkpoint(folder.checkpoints), weights_only=True)["state_dict"]


def test_every_launcher_trains_the_same_network_and_two_machines_go_on_where_one_stopped(two):
    own = two([[]], "own")
    log = own.log.read_text()
    assert "5 steps (3 an epoch) of 4 images (2 x 2 processes)" in log
    assert "learning rate 0.0046875 = 0.3 x 4 / 256" in log
    assert json.loads((own.exported / "facts.json").read_text())["steps"] == 5
    torchrun = ["-m", "torch.distributed.run"]
    other = two([[*torchrun, "--standalone", "--nproc-per-node", "2"]], "torchrun")
    # Back to step 4, as if killed right after it.
    (other.exported / "facts.json").unlink()
    (other.checkpoints / "step-000000005.ckpt").unlink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{free.getsockname()[1]}"
    machine = [*torchrun, "--nnodes", "2", "--nproc-per-node", "1"]
    machine += ["--rdzv-backend", "c10d", "--rdzv-endpoint", meeting, "--rdzv-id", "tests"]
    two([machine, machine], "torchrun", devices=1, num_nodes=2)
    assert "resuming after step 4" in other.log.read_text()
    first, second = weights(own), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
