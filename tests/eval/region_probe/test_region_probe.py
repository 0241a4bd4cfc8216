import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ccop_eval.cli import main
from ccop_eval.region_probe.accuracy import accuracy_statistic, class_accuracy
from ccop_eval.region_probe.coco_boxes import BoxedImages
from ccop_eval.region_probe.roi_features import assign_levels, pyramid_features, stage_features
from ccop_eval.region_probe.run import split_images
from ccop_eval.results.result import Result
from PIL import Image

from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def coco(tmp_path_factory, drawn_scenes, ground_boxes):
    """The drawn set as two COCO folders, `learnable` and `shuffled`, the latter with any category for each box.

    Its objects are one category, places without an object the other.
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
    common = ["--weights", "random", "--arch", "resnet18", "--accelerator", "cpu", "--workers", "0"]
    small = ["--short_side", "192", "--epochs", "12", "--batch_size", "32", "--cache", str(out.parent / "cache")]
    return main(["regions", *common, *small, "--data", str(data), "--out", str(out), *flags])


def test_learnable_classes_are_learnt_and_shuffled_ones_are_not(coco, seeing_weights, tmp_path):
    sides = ["--weights", str(seeing_weights), "--against", str(seeing_weights)]
    assert regions(coco / "learnable", tmp_path / "learnable", *sides) == 0
    assert regions(coco / "shuffled", tmp_path / "shuffled", *sides[:2], "--against", "null") == 0
    learnable, shuffled = (Result.read(tmp_path / name) for name in ("learnable", "shuffled"))
    for kind, least in (("linear", 78), ("knn", 70)):
        assert learnable.metrics[f"{kind}/overall"] > least
        assert shuffled.metrics[f"{kind}/overall"] < 65
    assert learnable.loaded == "backbone+fpn"
    assert learnable.protocol == "region-probe-pyramid+batch_size=32,epochs=12,short_side=192"
    assert learnable.paired["linear/overall"].low == learnable.paired["linear/overall"].high == 0
    assert learnable.metrics["linear/large/overall"] is None, "no drawn box is as large as that"
    assert learnable.metrics["knn/medium/overall"] is not None
    assert learnable.tensors.unused == []
    assert (tmp_path / "learnable" / "pictures" / "nearest-regions.png").is_file()


def test_weights_without_a_pyramid_compare_backbones(coco, tmp_path, capsys):
    tensors = build_resnet_fpn("resnet18", seed=1).state_dict()
    backbone = {key: value for key, value in tensors.items() if key.startswith("backbone.")}
    save_checkpoint(tmp_path / "weights", backbone, {"arch": "resnet18"})
    against = ["--against", str(tmp_path / "weights")]
    assert regions(coco / "learnable", tmp_path / "out", *against) == 0
    result = Result.read(tmp_path / "out")
    assert result.protocol.startswith("region-probe-stages+")
    assert (result.loaded, result.baseline.loaded) == ("backbone", "backbone")
    assert any("no pyramid" in note for note in result.notes)
    assert regions(coco / "learnable", tmp_path / "other", *against, "--features", "pyramid") == 2
    assert "has no feature pyramid" in capsys.readouterr().err


def make_split(counts, classes=3):
    generator = np.random.default_rng(0)
    return BoxedImages(
        annotations=None,
        classes=[f"c{index}" for index in range(classes)],
        paths=[f"{index}.png" for index in range(len(counts))],
        boxes=[np.zeros((count, 4), dtype=np.float32) for count in counts],
        labels=[generator.integers(0, classes, count) for count in counts],
        areas=[generator.choice([100.0, 1024.0, 9215.9, 9216.0], count) for count in counts],
    )


def test_accuracies_equal_a_slow_count_over_drawn_images():
    split = make_split([3, 1, 4, 2])
    hits = np.random.default_rng(1).random(10) < 0.5
    statistic = accuracy_statistic(split, {"knn": hits})
    bounds = {"": (0, math.inf), "small/": (0, 1024), "medium/": (1024, 9216), "large/": (9216, math.inf)}
    for draw in ([1, 1, 1, 1], [2, 0, 1, 1], [0, 3, 0, 1]):
        drawn = []
        for image, times in enumerate(draw):
            first = sum(len(boxes) for boxes in split.boxes[:image])
            for number, (label, area) in enumerate(zip(split.labels[image], split.areas[image], strict=True)):
                drawn += [(int(label), float(area), bool(hits[first + number]))] * times
        values = statistic(np.array(draw))
        for group, (low, high) in bounds.items():
            members = [(label, hit) for label, area, hit in drawn if low <= area < high]
            by_class = {label: [hit for other, hit in members if other == label] for label, _ in members}
            expected = 100 * np.mean([hit for _, hit in members]) if members else math.nan
            mean = 100 * np.mean([np.mean(values) for values in by_class.values()]) if members else math.nan
            assert values[f"knn/{group}overall"] == pytest.approx(expected, nan_ok=True)
            assert values[f"knn/{group}mean_class"] == pytest.approx(mean, nan_ok=True)
    assert class_accuracy(split, np.ones(10, dtype=bool))["c0"] == 100.0


def test_levels_are_those_of_the_paper():
    sides = torch.tensor([10.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 3000.0])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert assign_levels(boxes).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def position_maps(size, strides):
    """Feature maps that hold each cell's own centre, (x, y) in pixels of the image."""
    maps = {}
    for name, stride in strides.items():
        centres = (torch.arange(size // stride) + 0.5) * stride
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        maps[name] = torch.stack([x, y]).unsqueeze(0)
    return maps


def test_boxes_are_pooled_where_they_are():
    boxes = torch.tensor([[64.0, 96.0, 96.0, 160.0], [128.0, 64.0, 384.0, 320.0], [33.0, 65.0, 150.0, 190.0]])
    maps = position_maps(512, {"p2": 4, "p3": 8, "p4": 16, "p5": 32})
    network = SimpleNamespace(pyramid=lambda image: maps)
    centres = torch.stack([(boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2], dim=1)
    torch.testing.assert_close(pyramid_features(network, torch.zeros(1, 3, 512, 512), boxes), centres)
    stages = position_maps(512, {"res2": 4, "res3": 8, "res4": 16, "res5": 32})
    pooled = stage_features(SimpleNamespace(stages=lambda image: stages), torch.zeros(1, 3, 512, 512), boxes)
    torch.testing.assert_close(pooled, torch.nn.functional.normalize(centres).repeat(1, 4))


def test_holdout_never_splits_an_image():
    split = make_split([3, 1, 4, 2, 5])
    kept, held = split_images(split, 0.4, seed=0)
    assert sorted([*kept, *held]) == list(range(15))
    assert not set(split.owners[kept]) & set(split.owners[held])
    assert len(set(split.owners[held])) == 2
    with pytest.raises(UserError, match="holdout"):
        split_images(split, 1.5, seed=0)


def test_crowds_and_slivers_are_left_out_and_boxes_clipped(tmp_path):
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "val2017" / "a.png")
    rows = [([2, 3, 100, 4], 0), ([0, 0, 5, 5], 1), ([1, 1, 0.5, 5], 0), ([-4, 0, 8, 8], 0)]
    content = {
        "images": [{"id": 4, "file_name": "a.png", "width": 20, "height": 10}],
        "categories": [{"id": 9, "name": "thing"}],
        "annotations": [
            {"image_id": 4, "category_id": 9, "bbox": box, "area": 1.0, "iscrowd": crowd} for box, crowd in rows
        ],
    }
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    split = BoxedImages.read(tmp_path, "val")
    assert split.boxes[0].tolist() == [[2, 3, 20, 7], [0, 0, 4, 8]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "give --data a COCO folder"),
        ("{", "is not COCO"),
        ('{"images": []}', "is not COCO"),
        ('{"images": [], "annotations": [], "categories": []}', "has no boxes"),
    ],
)
def test_json_that_is_not_coco_is_one_line(tmp_path, content, says):
    (tmp_path / "annotations").mkdir()
    if content is not None:
        (tmp_path / "annotations" / "instances_train2017.json").write_text(content)
    with pytest.raises(UserError, match=says):
        BoxedImages.read(tmp_path, "train")
