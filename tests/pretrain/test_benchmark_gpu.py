import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pretrain_gpu.py"


def test_the_benchmark_runs_on_a_cpu_at_a_small_size(scenes, scene_proposals, tmp_path):
    out = tmp_path / "result.json"
    flags = ["--backbone", "test_resnet", "--image-size", "32", "--steps", "4", "--batches", "4", "--workers", "0"]
    data = ["--images", scenes, "--proposals", scene_proposals, "--work", tmp_path / "work", "--out", out]
    done = subprocess.run(
        [sys.executable, SCRIPT, *data, *flags, "--variants", "float32", "bf16"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["resumes_exactly"] is True
    losses = {name: list(variant["losses"].values()) for name, variant in result["variants"].items()}
    assert len(losses["float32"]) == 4
    assert losses["bf16"][0] == pytest.approx(losses["float32"][0], rel=0.05)
    assert all(variant["images_per_second"] > 0 for variant in result["variants"].values())
