"""The README's Python code runs unchanged from the root of a clone."""

import inspect
import re
from pathlib import Path
from typing import Any

import ccop_eval
import pytest
from ccop_eval.results.published import published_numbers

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


def test_the_first_lines_load_networks_of_the_shapes_they_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(BLOCKS[0], names)
    assert f"# {tuple(names['features'].shape)}" in BLOCKS[0]
    stated = dict(re.findall(r'"(p\d)": (\([\d, ]+\))', BLOCKS[0]))
    assert len(stated) == 2
    assert {name: str(tuple(names["levels"][name].shape)) for name in stated} == stated


def test_functions_take_the_arguments_that_are_shown() -> None:
    calls = [call for block in BLOCKS for call in re.findall(r"ccop_eval\.(\w+)\((.*?)\)", block)]
    assert calls
    for name, arguments in calls:
        keywords = dict(re.findall(r'(\w+)="([^"]*)"', arguments))
        assert keywords
        inspect.signature(getattr(ccop_eval, name)).bind(**keywords)


def test_the_tables_repeat_the_published_and_the_measured_numbers() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    published, measured = re.findall(r"(?:^\|.*\n){3,}", text, re.MULTILINE)
    known = {tuple(row.metrics.values()) for row in published_numbers("coco-fpn-4conv1fc-1x", 5000)}
    pairs = re.findall(r"\| (\d\d\.\d) \| (\d\d\.\d) \|", published)
    assert len(pairs) == 4
    assert {(float(box), float(mask)) for box, mask in pairs} <= known
    study = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w[\w ]*) \| (\d\.\d\d) \| (.*?) ?\|$", measured, re.MULTILINE)
    assert [name for name, _, _ in rows] == ["untrained", "MoCo v2", "CCOP"]
    for name, value, difference in rows:
        assert re.search(rf"^\| {name} \|.*\| {value} \| {re.escape(difference)} \|", study, re.MULTILINE), name
