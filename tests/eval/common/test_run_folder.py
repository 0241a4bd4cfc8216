"""A folder's contents determine whether a run starts, resumes or is already finished."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from ccop_eval.common.compute import launch
from ccop_eval.common.run_folder import RunFolder
from ccop_eval.results.result import Result
from ccop_eval.settings import KnnSettings
from lightning.fabric import Fabric

from ccop_hub.errors import UserError


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture
def settings(tmp_path: Path) -> KnnSettings:
    return KnnSettings("w", tmp_path / "data", tmp_path / "out", image_size=64)


@pytest.fixture
def result(make_result: Callable[[], Result]) -> Result:
    return make_result()


def finish(settings: KnnSettings, result: Result) -> None:
    result.write(settings.out / "result.json")


def test_a_failed_start_does_not_stand_in_the_way(fabric: Fabric, settings: KnnSettings) -> None:
    RunFolder(fabric, settings)
    other = dataclasses.replace(settings, image_size=96, resume=False)
    assert RunFolder(fabric, other).finished is None
    assert yaml.safe_load((settings.out / "settings.yaml").read_text())["image_size"] == 96


def test_a_finished_run_is_reported(
    fabric: Fabric, settings: KnnSettings, result: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(fabric, settings)
    finish(settings, result)
    found = RunFolder(fabric, dataclasses.replace(settings, workers=0, accelerator="cpu")).finished
    assert found is not None
    assert found.metrics == result.metrics
    assert "finished" in capsys.readouterr().out


def test_old_names_of_settings_describe_the_same_run(fabric: Fabric, settings: KnnSettings, result: Result) -> None:
    RunFolder(fabric, settings)
    finish(settings, result)
    path = settings.out / "settings.yaml"
    saved = yaml.safe_load(path.read_text())
    saved["arch"], saved["precision"] = saved.pop("backbone"), "32-true"
    del saved["resume"]
    path.write_text(yaml.safe_dump(saved))
    assert RunFolder(fabric, settings).finished is not None
    with pytest.raises(UserError, match=r"precision \(float32 there, bf16 now\)"):
        RunFolder(fabric, dataclasses.replace(settings, precision="bf16"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_size": 96}, r"image_size \(64 there, 96 now\).*--overwrite"),
        ({"seed": 1}, r"seed \(0 there, 1 now\)"),
        ({"resume": False}, r"--no-resume.*--overwrite"),
    ],
)
def test_another_run_is_refused_and_left_alone(
    fabric: Fabric, settings: KnnSettings, result: Result, change: dict[str, object], said: str
) -> None:
    RunFolder(fabric, settings)
    finish(settings, result)
    with pytest.raises(UserError, match=said):
        RunFolder(fabric, dataclasses.replace(settings, **change))
    assert Result.read(settings.out).metrics == result.metrics


def test_overwriting_removes_the_result(fabric: Fabric, settings: KnnSettings, result: Result) -> None:
    RunFolder(fabric, settings)
    finish(settings, result)
    assert RunFolder(fabric, dataclasses.replace(settings, seed=1, overwrite=True)).finished is None
    assert not (settings.out / "result.json").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_file_in_place_of_the_folder_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "file").write_text("mine")
    settings = KnnSettings("w", tmp_path, tmp_path / "file", overwrite=overwrite)
    with pytest.raises(UserError, match="is a file"):
        RunFolder(Fabric(accelerator="cpu", devices=1), settings)
    assert (tmp_path / "file").read_text() == "mine"


class _Planted:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def launched(settings: KnnSettings) -> Fabric:
    return launch(dataclasses.replace(settings, accelerator="cpu"))


def test_a_state_is_read_back(launched: Fabric, settings: KnnSettings) -> None:
    folder = RunFolder(launched, settings)
    curve = [{"step": 1, "train/loss": 0.5}]
    folder.save_state({"epoch": 3, "curve": curve, "identity": {"seed": 0}})
    state = {"epoch": 0, "curve": [], "identity": {"seed": 0}}
    folder.load_state(state)
    assert state == {"epoch": 3, "curve": curve, "identity": {"seed": 0}}
    with pytest.raises(UserError, match=r"other seed.*--overwrite"):
        folder.load_state({"epoch": 0, "curve": [], "identity": {"seed": 1}})


def test_a_state_that_could_run_code_is_refused(launched: Fabric, settings: KnnSettings, tmp_path: Path) -> None:
    folder = RunFolder(launched, settings)
    torch.save({"epoch": _Planted(tmp_path / "ran"), "identity": {}}, folder.state)
    with pytest.raises(UserError, match=r"posix\.system.*could run code.*--overwrite") as caught:
        folder.load_state({"epoch": 0, "identity": {}})
    assert str(folder.state) in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"identity": [1]},
        {"identity": None},
        {"epoch": "3"},
        {"curve": {"a": 1}},
        {"network": [1]},
        {"network": {"a": 1}},
    ],
)
def test_a_state_of_other_types_is_refused(launched: Fabric, settings: KnnSettings, wrong: dict[str, object]) -> None:
    folder, network = RunFolder(launched, settings), torch.nn.Linear(2, 1)
    sound = {"epoch": 3, "curve": [], "identity": {"seed": 0}, "network": network.state_dict()}
    torch.save(sound, folder.state)
    folder.load_state({"epoch": 0, "curve": [], "identity": {"seed": 0}, "network": network})
    torch.save({**sound, **wrong}, folder.state)
    with pytest.raises(UserError, match=r"state\.ckpt is not a state of this run .*--overwrite"):
        folder.load_state({"epoch": 0, "curve": [], "identity": {"seed": 0}, "network": network})


def test_a_state_of_an_earlier_version_lacks_some_values(launched: Fabric, settings: KnnSettings) -> None:
    folder = RunFolder(launched, settings)
    torch.save({"epoch": 3, "identity": {"seed": 0}}, folder.state)
    state = {"epoch": 0, "losses": [], "step": 0, "totals": {}, "identity": {"seed": 0}}
    folder.load_state(state)
    assert state == {"epoch": 3, "losses": [], "step": 0, "totals": {}, "identity": {"seed": 0}}
    with pytest.raises(UserError, match="not a state of this run"):
        folder.load_state({**state, "curve": []})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", b"\x80\x02]."])
def test_a_damaged_state_is_named(launched: Fabric, settings: KnnSettings, content: bytes) -> None:
    folder = RunFolder(launched, settings)
    folder.state.write_bytes(content)
    with pytest.raises(UserError, match=r"state\.ckpt.*--overwrite"):
        folder.load_state({"epoch": 0, "identity": {}})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_network_is_not_saved_over_a_sound_one(
    launched: Fabric, settings: KnnSettings, value: float
) -> None:
    folder, network = RunFolder(launched, settings), torch.nn.Linear(2, 1)
    folder.save_state({"network": network, "identity": {}})
    saved = folder.state.read_bytes()
    with torch.no_grad():
        network.weight[0, 1] = value
    with pytest.raises(UserError, match=r"diverged: weight is not finite; use a lower --lr"):
        folder.save_state({"network": network, "identity": {}})
    assert folder.state.read_bytes() == saved
