import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from ccop_eval.cli import main
from ccop_eval.region_probe.run import split_images
from ccop_eval.results.comparison import group_results
from ccop_eval.results.result import Result
from PIL import Image

from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import save_checkpoint

from .splits import make_split


@pytest.fixture(scope="module")
def coco(tmp_path_factory, drawn_scenes, ground_boxes):
    """The synthetic data set as two COCO folders: `learnable`, and `shuffled` with random categories.

    One category is the objects, the other object-free squares.
    """
    root = tmp_path_factory.mktemp("coco")
    generator = np.random.default_rng(3)
    categories = [{"id": 7, "name": "ground"}, {"id": 14, "name": "object"}]
    for split in ("train", "val"):
        drawn = json.loads((drawn_scenes / "annotations" / f"instances_{split}2017.json").read_text())
        rows = [{**row, "category_id": 14} for row in drawn["annotations"]]
        for image in drawn["images"]:
            label = Image.open(drawn_scenes / "semantic" / f"{split}2017" / f"{Path(image['file_name']).stem}.png")
            for x1, y1, x2, y2 in ground_boxes(np.asarray(label), 3, generator):
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                rows.append({"id": 10_000 + len(rows), "image_id": image["id"], "category_id": 7, **box})
        dealt = generator.permutation([row["category_id"] for row in rows]).tolist()
        shuffled = [{**row, "category_id": category} for row, category in zip(rows, dealt, strict=True)]
        for name, annotations in (("learnable", rows), ("shuffled", shuffled)):
            file = root / name / "annotations" / f"instances_{split}2017.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({**drawn, "annotations": annotations, "categories": categories}))
            (root / name / f"{split}2017").symlink_to(drawn_scenes / f"{split}2017")
    return root


def regions(data, out, *flags):
    common = ["--weights", "random", "--backbone", "resnet18", "--accelerator", "cpu", "--workers", "0"]
    small = ["--short_side", "192", "--cache", str(out.parent / "cache")]
    return main(["regions", *common, *small, "--data", str(data), "--out", str(out), *flags])


def test_learnable_classes_are_learnt_and_shuffled_ones_are_not(coco, seeing_weights, tmp_path):
    sides = ["--weights", str(seeing_weights), "--against", str(seeing_weights)]
    assert regions(coco / "learnable", tmp_path / "learnable", *sides) == 0
    assert regions(coco / "shuffled", tmp_path / "shuffled", *sides[:2], "--against", "null") == 0
    learnable, shuffled = (Result.read(tmp_path / name) for name in ("learnable", "shuffled"))
    for kind, least in (("linear", 78), ("knn", 70)):
        assert learnable.metrics[f"{kind}/overall"] > least
        assert shuffled.metrics[f"{kind}/overall"] < 70, "50 is chance, 6.5 the standard deviation"
    assert learnable.loaded == "backbone+fpn"
    assert learnable.protocol == "region-probe-2-pyramid+short_side=192"
    assert learnable.paired["linear/overall"].low == learnable.paired["linear/overall"].high == 0
    assert learnable.metrics["linear/large/overall"] is None, "no drawn box is as large as that"
    assert learnable.metrics["knn/medium/overall"] is not None
    assert learnable.tensors.unused == []
    old = dataclasses.replace(learnable, protocol="region-probe-pyramid+short_side=192")
    assert [len(group.rows) for group in group_results([old, learnable])] == [2, 2], "versions are not compared"
    assert (tmp_path / "learnable" / "pictures" / "nearest-regions.png").is_file()


def test_weights_without_a_pyramid_compare_backbones(coco, tmp_path, capsys):
    tensors = build_resnet_fpn("resnet18", seed=1).state_dict()
    backbone = {key: value for key, value in tensors.items() if key.startswith("backbone.")}
    save_checkpoint(tmp_path / "weights", backbone, {"arch": "resnet18"})
    against = ["--against", str(tmp_path / "weights")]
    assert regions(coco / "learnable", tmp_path / "out", *against) == 0
    result = Result.read(tmp_path / "out")
    assert result.protocol.startswith("region-probe-2-stages+")
    assert (result.loaded, result.against.loaded) == ("backbone", "backbone")
    assert any("no pyramid" in note for note in result.notes)
    assert regions(coco / "learnable", tmp_path / "other", *against, "--features", "pyramid") == 2
    assert "has no feature pyramid" in capsys.readouterr().err


def test_holdout_never_splits_an_image():
    split = make_split([3, 1, 4, 2, 5])
    kept, held = split_images(split, 0.4, seed=0)
    assert sorted([*kept, *held]) == list(range(15))
    assert not set(split.owners[kept]) & set(split.owners[held])
    assert len(set(split.owners[held])) == 2
    with pytest.raises(UserError, match="holdout"):
        split_images(split, 1.5, seed=0)


def test_one_box_is_too_few_to_train_on():
    with pytest.raises(UserError, match="leaves 1 boxes to train on"):
        split_images(make_split([1, 1]), 0.5, seed=0)
