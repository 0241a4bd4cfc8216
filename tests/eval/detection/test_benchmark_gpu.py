import importlib.util
import json
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Draw = Callable[..., Path]


@pytest.fixture(scope="module")
def benchmark() -> types.ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "detection_gpu.py"
    spec = importlib.util.spec_from_file_location("detection_gpu", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gpu_benchmark_runs_small_on_a_cpu(
    benchmark: types.ModuleType, draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    root = draw(tmp_path / "shapes", train=4, val=1)
    flags = ["--backbone=resnet18", "--accelerator=cpu", "--workers=0", "--iterations=4", "--batch-size=2"]
    out = tmp_path / "results" / "raw.json"
    arguments = [
        f"--data=coco={root}",
        f"--out={out}",
        *flags,
        "--protocols",
        "small-cpu",
        "voc-c4-24k",
    ]  # the second has no data
    assert benchmark.main(arguments) == 0
    record = json.loads(out.read_text())
    (row,) = record["rows"]
    assert row["protocol id"].startswith("small-cpu+")
    assert row["losses finite"]
    assert set(row["losses"]) >= {"total_loss", "loss_mask", "loss_cls"}
    assert (row["mixed precision"], row["norm"], row["peak GPU memory, MiB"]) == (False, "BN", None)
    assert row["resumed"] in (None, "resumed after iteration 2")
    assert record["hardware"]["device"] == "cpu"
    assert record["command"] == arguments


def test_a_run_that_fails_is_a_row_that_says_so(benchmark: types.ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "raw.json"
    assert benchmark.main(["--data=any=nowhere", f"--out={out}", "--accelerator=cpu", "--protocols", "small-cpu"]) == 1
    (row,) = json.loads(out.read_text())["rows"]
    assert "no data set at nowhere" in row["error"][0]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_one_gpu_trains_in_mixed_precision(benchmark: types.ModuleType, draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path / "shapes", train=16, val=2)
    out = tmp_path / "raw.json"
    flags = ["--backbone=resnet18", "--workers=2", "--iterations=10"]
    arguments = [f"--data=coco={root}", f"--out={out}", *flags, "--protocols", "coco-fpn-4conv1fc-1x", "coco-c4-1x"]
    assert benchmark.main(arguments) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["mixed precision"] for row in rows] == [True, False]
    assert all(row["losses finite"] and row["peak GPU memory, MiB"] > 0 for row in rows)


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_two_gpus_train_with_syncbn(benchmark: types.ModuleType, draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path / "shapes", train=16, val=2)
    out = tmp_path / "raw.json"
    flags = ["--backbone=resnet18", "--workers=2", "--iterations=10", "--devices=2"]
    arguments = [f"--data=coco={root}", f"--out={out}", *flags, "--protocols", "coco-fpn-4conv1fc-1x"]
    assert benchmark.main(arguments) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["norm"] == "SyncBN"
    assert row["losses finite"]
