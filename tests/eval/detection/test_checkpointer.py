"""The checkpoints that a detection run resumes from are not trusted: the folder may come from somebody else."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from ccop_eval.detection.engine import load_engine

from ccop_hub.errors import UserError

load_engine()

from ccop_eval.detection.trainer import Checkpointer  # noqa: E402 - imports Detectron2


class Code:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def network() -> torch.nn.Module:
    return torch.nn.Linear(2, 1)


def saved(folder: Path, network: torch.nn.Module) -> Checkpointer:
    checkpointer = Checkpointer(network, str(folder))
    checkpointer.save("model_0000001", iteration=1)
    return checkpointer


def test_a_checkpoint_is_read_back(network, tmp_path: Path):
    saved(tmp_path, network)
    other = torch.nn.Linear(2, 1)
    state = Checkpointer(other, str(tmp_path)).resume_or_load("", resume=True)
    assert state["iteration"] == 1
    assert torch.equal(other.weight, network.weight)


@pytest.mark.parametrize(
    "name", ["evil.pkl", "model_0000001.pkl", "../model_final.pth", "/etc/model_final.pth", "", "a\nb"]
)
def test_only_a_checkpoint_beside_the_record_is_read(network, tmp_path: Path, name: str):
    checkpointer = saved(tmp_path, network)
    if name.endswith(".pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Code(tmp_path / "ran")))
    (tmp_path / "last_checkpoint").write_text(name)
    with pytest.raises(UserError, match=r"last_checkpoint does not name a checkpoint.*--overwrite"):
        checkpointer.resume_or_load("", resume=True)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_with_code_damage_or_nan_is_refused(network, tmp_path: Path):
    checkpointer = saved(tmp_path, network)
    path = tmp_path / "model_0000001.pth"
    weights = network.state_dict()
    wrong = {
        "could run code": {"model": weights, "code": Code(tmp_path / "ran")},
        "weight in .* is NaN": {"model": {**weights, "weight": torch.full((1, 2), float("nan"))}},
        r"not a checkpoint of this detector \(bias": {"model": {**weights, "bias": torch.zeros(3)}},
        "not a checkpoint of this detector:": {"model": {"weight": weights["weight"]}},
        "not a checkpoint of this detector": {"model": [1]},
    }
    for told, state in wrong.items():
        torch.save(state, path)
        with pytest.raises(UserError, match=told):
            checkpointer.resume_or_load("", resume=True)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"is damaged.*--overwrite"):
        checkpointer.resume_or_load("", resume=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_names_the_checkpoint_and_leaves_nothing(network, tmp_path: Path):
    (tmp_path / "model_0000001.unfinished.pth").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*model_0000001\.pth \(No space left on device\)"):
        Checkpointer(network, str(tmp_path)).save("model_0000001", iteration=1)
    assert not list(tmp_path.iterdir())
