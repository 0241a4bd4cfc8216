import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pretrain_gpu.py"


def test_the_benchmark_runs_on_a_cpu_at_a_small_size(tmp_path):
    out = tmp_path / "result.json"
    flags = ["--device", "cpu", "--backbone", "test_resnet", "--image-size", "64", "--batch", "4", "--boxes", "3"]
    flags += ["--steps", "1", "--rounds", "2", "--variants", "ccop", "supervised", "--out", str(out)]

    def run(*more):
        return subprocess.run(
            [sys.executable, SCRIPT, *flags, *more],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=900,
        )

    first = run("--pieces", "throughput", "waits", "profile", "augmentation", "floor")
    assert first.returncode == 0, first.stderr
    result = json.loads(out.read_text())
    assert result["waits"]["ccop"] == {"calls": 1, "places": {"_local_scalar_dense": 1}}
    assert result["waits"]["supervised"]["calls"] == 0
    assert result["images per second"].keys() == {"ccop", "supervised"}
    (ratio,) = [each for name, each in result["ratios"].items() if name == "ccop / supervised"]
    assert len(ratio["all"]) == 2
    assert 0 < result["augmentation"]["ccop"]["share"] < 1
    assert result["augmentation"]["supervised"] is None
    # Two encoders, one of them with gradients, and a pyramid move more than a classifier.
    assert result["floor"]["ccop"]["bytes"] > 4 / 3 * result["floor"]["supervised"]["bytes"]
    assert result["profile"]["ccop"]["operators"] > 500
    other = run("--pieces", "waits", "--precision", "float32")
    assert other.returncode != 0
    assert "other settings" in other.stderr
