import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "proposals_memory.py"
FEW, MANY = 2_000, 42_000
BYTES_AN_IMAGE = 400  # 0.4 GB for a million images. Fifty boxes in memory would already take 800.


def peak(images: int) -> float:
    command = [sys.executable, str(SCRIPT), str(images), "--again"]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert facts["boxes"] == images * 50
    return float(facts["peak_again_mb"]) * 2**20


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is asked of POSIX")
def test_memory_does_not_grow_with_the_proposals_found() -> None:
    few, many = peak(FEW), peak(MANY)
    assert many - few < (MANY - FEW) * BYTES_AN_IMAGE
    assert few < 600 * 2**20
