"""The Python functions of `ccop_eval` take the same settings and return the same results as the commands."""

import dataclasses
import inspect
import subprocess
import sys

import ccop_eval
import pytest
from ccop_eval import settings
from ccop_eval.results.result import Result

from ccop_hub.errors import UserError

FUNCTIONS = {
    "detect": settings.DetectionSettings,
    "segment": settings.SegmentationSettings,
    "linear": settings.LinearSettings,
    "knn": settings.KnnSettings,
    "regions": settings.RegionSettings,
    "voc_svm": settings.VocSvmSettings,
    "compare": settings.CompareSettings,
    "visualize": settings.VisualizeSettings,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_signature_and_help_of_its_settings(name):
    function, fields = getattr(ccop_eval, name), dataclasses.fields(FUNCTIONS[name])
    assert set(inspect.signature(function).parameters) == {field.name for field in fields}
    for field in fields:
        assert f"\n    {field.name}: " in function.__doc__
    assert name in ccop_eval.__all__


def test_a_wrong_value_is_one_line_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"--image-size 0 .* 32"):
        ccop_eval.knn("random", tmp_path, tmp_path / "out", image_size=0)


def test_results_are_typed_compared_and_shown_with_their_pictures(image_folders, tiny_weights, tmp_path):
    given = {"image_size": 32, "neighbours": [1], "workers": 0, "cache": tmp_path / "cache"}
    result = ccop_eval.knn(str(tiny_weights), image_folders / "learnable", tmp_path / "knn", accelerator="cpu", **given)
    assert isinstance(result, Result)
    written = Result.read(tmp_path / "knn")
    assert result.metrics == written.metrics
    assert result.folder == written.folder == tmp_path / "knn"
    assert "folder" not in result.document()
    assert result.pictures
    page = result._repr_html_()
    (metric,) = (name for name in result.metrics if "top1" in name)
    assert metric in page
    assert f"{result.metrics[metric]:.1f}" in page
    assert page.count("data:image/png;base64,") == len(result.pictures)

    comparison = ccop_eval.compare([tmp_path / "knn"], markdown=tmp_path / "table.md")
    assert [row.result.metrics for group in comparison.groups for row in group.rows] == [result.metrics]
    assert comparison.markdown() == (tmp_path / "table.md").read_text()
    assert "<iframe" in comparison._repr_html_()


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, ccop_eval; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "numpy", "pydantic", "lightning"} & set(found) == set()


def test_heads_need_two_per_step(tmp_path):
    with pytest.raises(UserError, match="--batch-size 1 is not allowed: give a whole number, 2 or more"):
        settings.LinearSettings("random", tmp_path, tmp_path, batch_size=1)
