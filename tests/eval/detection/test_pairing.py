"""Paired runs of two sets of weights."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ccop_eval.cli import main
from ccop_eval.detection.engine import load_engine
from ccop_eval.results.result import Result

from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.formats.checkpoint import save_checkpoint

load_engine()


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory, draw_split: Callable[..., None]) -> Path:
    """Two untrained networks, one of them from a file, on 10 % of the training images."""
    work = tmp_path_factory.mktemp("paired")
    network = build_resnet_fpn("resnet18", seed=1)
    facts = {"arch": "resnet18", "objective": "ccop", "parts": ["backbone", "fpn"]}
    save_checkpoint(work / "exported", network.state_dict(), facts)
    draw_split(work / "many", "train", images=20, seed=5)
    draw_split(work / "many", "val", images=4, seed=5)
    small = ["--backbone=resnet18", "--protocol=small-cpu", "--batch-size=2", "--iterations=3", "--workers=0"]
    flags = [*small, "--few-images=10%"]
    weights = ["--weights", str(work / "exported"), "--against=random", "--load=backbone"]
    with (work / "printed.txt").open("w") as file, contextlib.redirect_stdout(file):
        assert main(["detection", *weights, *flags, f"--data={work / 'many'}", f"--out={work / 'pair'}"]) == 0
    return work / "pair"


def test_both_weights_have_a_result_and_the_difference_is_paired(paired: Path) -> None:
    own, other = Result.read(paired), Result.read(paired / "against")
    assert own.against is not None
    assert other.against is None
    assert (own.weights.name, own.loaded) == (str(paired.parent / "exported"), "backbone")
    assert (other.weights.name, other.loaded) == ("random", "nothing")
    assert own.against.weights == other.weights
    assert own.against.metrics == other.metrics
    assert own.settings["against"] == "random"
    assert (own.data, own.seed, own.protocol) == (other.data, other.seed, other.protocol)
    assert "bbox/AP" in own.paired
    for name, interval in own.paired.items():
        values = own.metrics[name], other.metrics[name]
        assert interval.difference == pytest.approx((values[0] or 0) - (values[1] or 0))
        assert interval.low <= interval.high
    assert own.intervals["segm/AP50"][0] <= own.metrics["segm/AP50"] <= own.intervals["segm/AP50"][1]
    for out in (paired, paired / "against"):
        assert (out / "detections.png").exists()
        assert (out / "detectron2" / "model_final.pth").exists()


def test_a_file_gets_the_table_of_both_at_its_full_width(paired: Path) -> None:
    printed = (paired.parent / "printed.txt").read_text()
    header = next(line for line in printed.splitlines() if "loaded" in line and "bbox/AP50" in line)
    assert header.replace("┃", " ").split() == [
        *("weights", "loaded", "seed", "lr"),
        *(f"{kind}/{name}" for kind in ("bbox", "segm") for name in ("AP", "AP50", "AP75")),
    ]
    assert f"│ {paired.parent / 'exported'} │ backbone" in printed
    assert "…" not in printed
    rescaled = [
        line for line in printed.splitlines() if line.startswith("note: rescaled by the linear rule: batch 2, lr")
    ]
    assert len(rescaled) == 2, "once for each weights"


def test_both_weights_had_the_same_batches(paired: Path) -> None:
    """Region sampling too: the number of sampled foreground boxes depends only on the boxes and the random draws."""
    lines = [
        json.loads((out / "detectron2" / "metrics.json").read_text().splitlines()[0])
        for out in (paired, paired / "against")
    ]
    assert lines[0]["rpn/num_pos_anchors"] == lines[1]["rpn/num_pos_anchors"]


def test_few_images_are_recorded(paired: Path) -> None:
    result = Result.read(paired)
    assert result.protocol == "small-cpu+batch_size=2,few_images=10%,iterations=3"
    assert result.data.name == "many (10%)"
    assert (result.details["training images"], result.data.images) == (2, 4)
    names = (paired / "few_images.txt").read_text().split()
    assert len(names) == 2
    assert (paired / "against" / "few_images.txt").read_text().split() == names
    assert any("trained on 2 images, 10% of them all" in note for note in result.notes)


def test_the_pair_is_two_rows_of_one_table(paired: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(paired), f"--markdown={paired / 'table.md'}"]) == 0
    rows = [line for line in (paired / "table.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 4, "a header, its line, and two"
    assert rows[2].startswith("| random | nothing")
    assert re.search(r"\([+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\]\)", rows[3])


def test_the_interval_of_a_difference_is_the_bootstraps(paired: Path) -> None:
    """A detector that finds all objects against one that finds them in every other image; resampled by hand."""
    from ccop_eval.detection.pairing import RESAMPLES, pair
    from ccop_eval.detection.plan import make_plan
    from ccop_eval.settings import DetectionSettings

    root = paired.parent
    settings = DetectionSettings(
        weights="random", backbone="resnet18", data=root / "many", out=root / "by-hand", protocol="small-cpu", seed=3
    )
    plan = make_plan(settings)
    truth = json.loads(plan.data.val.annotations.read_text())
    found = [{**entry, "score": 1 - entry["id"] / 1000} for entry in truth["annotations"]]
    for folder, kept in ((plan.folder, found), (root / "half", [one for one in found if one["image_id"] % 2])):
        (folder / "inference").mkdir(parents=True)
        entries = [{name: one[name] for name in ("image_id", "category_id", "bbox", "score")} for one in kept]
        (folder / "inference" / "coco_instances_results.json").write_text(json.dumps(entries))
    own, other = (
        dataclasses.replace(Result.read(paired), metrics={"bbox/AP": value}) for value in (100.0, float("nan"))
    )
    result = pair(own, other, plan, root / "half")
    generator = np.random.default_rng(3)
    differences = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(0, 4, 4)
        differences.append(100 - _share_found(truth, [truth["images"][place]["id"] for place in drawn]))
    expected = np.quantile([value for value in differences if np.isfinite(value)], [0.025, 0.975])
    interval = result.paired["bbox/AP"]
    assert (interval.low, interval.high) == pytest.approx(tuple(expected))
    assert interval.difference == pytest.approx(100 - _share_found(truth, [1, 2, 3, 4]))


def _share_found(truth: dict[str, Any], images: list[int]) -> float:
    """AP if exactly the objects in odd-numbered images are found, without false positives."""
    values = []
    for category in truth["categories"]:
        objects = [
            one["image_id"] % 2
            for image in images
            for one in truth["annotations"]
            if one["image_id"] == image and one["category_id"] == category["id"]
        ]
        if objects:
            reached = np.linspace(0, 1, 101) <= sum(objects) / len(objects)
            values.append(100 * reached.mean() if sum(objects) else 0.0)
    return float(np.mean(values)) if values else float("nan")
