import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sharded_proposals.py"


def test_the_merge_of_two_synthetic_parts_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, str(SCRIPT), "--merge", "600", "--scratch", str(tmp_path), "--out", str(out)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    (row,) = json.loads(out.read_text())["merge"]
    assert row["images"] == 600  # in three shards, from two parts of two files each
    assert row["merge, us per image"] > row["floor, us per image"] > 0
    assert row["peak, MB"] >= row["peak after listing, MB"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json"]
