"""The example of docs/python.md runs as written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import ccop_eval
import ccop_pretrain

import ccop_hub

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_example_runs_and_ends_in_a_table(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    script = f'if __name__ == "__main__":\n{"".join(f"    {line}" for line in example.splitlines(keepends=True))}'
    (tmp_path / "example.py").write_text(script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| r")]
    assert [row.split(" | ")[0] for row in rows] == ["| random", "| run"]
    assert (tmp_path / "timm" / "config.json").is_file()


def test_the_page_names_every_function():
    for package in (ccop_hub, ccop_pretrain, ccop_eval):
        (row,) = re.findall(rf"^\| `{package.__name__}` \| (.*) \|$", PAGE, re.MULTILINE)
        functions = [name for name in package.__all__ if name[0].islower() and not name.startswith("_")]
        assert sorted(re.findall(r"`(\w+)`", row)) == sorted(functions)
