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
    rows = re.findall(r"^\| (\w[^|]*) \| (\d+\.\d\d) \| (\d+\.\d\d) \| (.*?) ?\|$", measured, re.MULTILINE)
    assert {name for name, *_ in rows} == set(MEASURES) - {"image kNN, k = 100"}
    for name, start, trained, difference in rows:
        assert_measured("small", name, start, trained, difference)


def test_the_guide_repeats_the_measured_numbers() -> None:
    text = (ROOT / "docs" / "first-run.md").read_text(encoding="utf-8")
    cell = r"(\d+\.\d\d) to (\d+\.\d\d): ([^|]*?)"
    rows = re.findall(rf"^\| (\w[^|]*) \| (?:{cell}|not measured) \| {cell} \|$", text, re.MULTILINE)
    assert len(rows) == len(MEASURES)
    for (name, *values), measure in zip(rows, MEASURES, strict=True):
        assert name.startswith(measure.partition(" k = ")[0].removesuffix(","))
        if values[0]:
            assert_measured("cpu", measure, *values[:3])
        assert_measured("small", measure, *values[3:])


MEASURES = {
    "image kNN, 200 classes": "knn `k20/top1`",
    "image kNN, k = 100": "knn `k100/top1`",
    "region probe, linear, class mean": "regions `linear/mean_class`",
    "region probe, kNN, class mean": "regions `knn/mean_class`",
    "linear probe, 200 classes": "linear `top1`",
    "segmentation of CamVid, frozen backbone, mIoU": "segmentation_frozen `mIoU`",
    "segmentation of CamVid, fine-tuned, mIoU": "segmentation `mIoU`",
}
"""Measure in README and guide -> in the study's table."""


def assert_measured(scale: str, measure: str, start: str, trained: str, difference: str) -> None:
    """Look up an untrained and a trained value, and their difference, in the study's page."""
    study = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    section = study.partition(f"## Photographs, scale `{scale}`")[2].partition("\n## ")[0]
    name = re.escape(MEASURES[measure])
    assert re.search(rf"^\| {name} \| untrained \| \d \| {start} \|", section, re.MULTILINE), measure
    found = rf"^\| {name} \| CCOP \| \d \| {trained} \| {re.escape(difference)} \|"
    assert re.search(found, section, re.MULTILINE), measure
