"""Tests with real, killed processes, which run `interrupted_runs.py`."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from ccop_pretrain.training.checkpoints import newest_checkpoint, remove_others
from ccop_pretrain.training.run_folder import RunFolder

from ccop_hub.saved_settings import plain

from ...small_run import SMALL_RUN

STEPS = 8


@pytest.fixture(scope="module")
def ends(scenes, scene_proposals, tmp_path_factory):
    """Exit statuses by name, and the folders of the uninterrupted and the interrupted run."""
    folder = tmp_path_factory.mktemp("interruptions")
    settings = {
        **SMALL_RUN,
        "images": scenes,
        "proposals": scene_proposals,
        "out": folder / "whole",
        "backbone": "test_resnet",
        "steps": STEPS,
        "save_every": 2,
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(plain(settings)))
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"kills were drawn from seed {seed}")
    script = Path(__file__).with_name("interrupted_runs.py")
    done = subprocess.run(
        [sys.executable, script, folder / "settings.yaml", str(seed), folder / "statuses.json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    statuses = json.loads((folder / "statuses.json").read_text())
    return statuses, RunFolder(folder / "whole"), RunFolder(folder / "broken"), done.stderr


def test_every_run_ended_as_it_was_meant_to(ends):
    statuses, *_, said = ends
    assert statuses.pop("any_moment") in (-signal.SIGKILL, 0)
    assert statuses.pop("export") in (-signal.SIGKILL, 0)
    assert statuses == {
        "whole": 0,
        "settings": -signal.SIGKILL,
        "step": -signal.SIGKILL,
        "write": -signal.SIGKILL,
        "optimiser": -signal.SIGKILL,
        "sigterm": 128 + signal.SIGTERM,
        "after_sigterm": 5,
        "disk": 2,
        "last": 0,
    }
    assert "File too large" in said
    assert "resume from the previous checkpoint" in said


def test_the_same_command_ends_with_the_same_bits(ends):
    _, whole, broken, _ = ends
    states = []
    for folder in (whole, broken):
        path = newest_checkpoint(folder.checkpoints)
        assert path.name == f"step-{STEPS:09d}.ckpt"
        states.append(torch.load(path, weights_only=True))
    first, second = states
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name
    for kind in ("optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(first[kind], second[kind], rtol=0, atol=0)
    weights = [(folder.exported / "facts.json").read_text() for folder in (whole, broken)]
    assert json.loads(weights[0])["fingerprint"] == json.loads(weights[1])["fingerprint"]


def test_the_folder_shows_one_run_without_gaps_or_leftovers(ends):
    _, whole, broken, _ = ends
    with broken.metrics.open() as file:
        rows = list(csv.DictReader(file))
    with whole.metrics.open() as file:
        expected = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == [str(step + 1) for step in range(STEPS)]
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]
    kept = [f"step-{step:09d}.ckpt" for step in (STEPS - 2, STEPS)]
    assert sorted(path.name for path in broken.checkpoints.iterdir()) == kept
    assert not list(broken.path.rglob("*.partial"))


def test_a_damaged_newest_checkpoint_is_passed_over_and_removed(tmp_path, caplog):
    for step in (2, 4, 6):
        torch.save({"step": step}, tmp_path / f"step-{step:09d}.ckpt")
    newest = tmp_path / "step-000000006.ckpt"
    newest.write_bytes(newest.read_bytes()[:-40])
    (tmp_path / ".step-000000008.ckpt.partial").write_bytes(b"half")
    assert newest_checkpoint(tmp_path).name == "step-000000004.ckpt"
    assert "step-000000006.ckpt is damaged" in caplog.text
    remove_others(tmp_path, keep=1, until=4)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000004.ckpt"]
