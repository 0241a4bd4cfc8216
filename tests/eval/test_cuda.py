import pytest
import torch
from ccop_eval.cli import main
from ccop_eval.results.result import Result

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]

COMMON = ["--weights", "random", "--backbone", "resnet18", "--against", "null", "--image_size", "64", "--workers", "0"]


def test_linear_probe_on_a_gpu_finds_what_a_cpu_finds(image_folders, tmp_path):
    data = ["--data", str(image_folders / "learnable"), "--epochs", "2", "--batch_size", "32"]
    for accelerator in ("cpu", "cuda"):
        out = ["--out", str(tmp_path / accelerator), "--accelerator", accelerator]
        assert main(["linear", *COMMON, *data, *out]) == 0
    cpu, gpu = (Result.read(tmp_path / name) for name in ("cpu", "cuda"))
    assert gpu.metrics["top1"] == pytest.approx(cpu.metrics["top1"], abs=5)
    assert gpu.hardware["device"] != "cpu"


def test_mixed_precision_features_find_the_same_neighbours(image_folders, tmp_path):
    data = ["--data", str(image_folders / "learnable"), "--neighbours", "[5]", "--cache", str(tmp_path / "cache")]
    for precision in ("float32", "bf16"):
        out = ["--out", str(tmp_path / precision), "--accelerator", "cuda", "--precision", precision]
        assert main(["knn", *COMMON, *data, *out]) == 0
    full, mixed = (Result.read(tmp_path / name) for name in ("float32", "bf16"))
    assert mixed.metrics["k5/top1"] == pytest.approx(full.metrics["k5/top1"], abs=10)
    assert len(list((tmp_path / "cache").glob("*/identity.json"))) == 4, "each precision has features of its own"
