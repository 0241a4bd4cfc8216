from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from ccop_eval.common.compute import launch
from ccop_eval.common.run_folder import RunFolder
from ccop_eval.settings import KnnSettings


def test_a_state_is_written_beside_its_place_and_not_through_another_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = KnnSettings("random", tmp_path, tmp_path / "out", accelerator="cpu")
    folder = RunFolder(launch(settings), settings)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))  # not writable
    folder.save_state({"step": 3, "weight": torch.ones(2)})
    loaded = torch.load(folder.state, weights_only=True)
    assert loaded["step"] == 3
    assert loaded["weight"].tolist() == [1, 1]
