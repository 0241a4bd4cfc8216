import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from ccop_eval.cli import main
from ccop_eval.protocols import SEGMENTATION_PROTOCOLS, apply_settings
from ccop_eval.results.result import Result
from ccop_eval.segmentation.crops import random_crop
from ccop_eval.segmentation.dataset import cityscapes_table, open_labelled_images
from ccop_eval.segmentation.network import Fcn16
from ccop_eval.segmentation.run import in_iterations
from ccop_eval.segmentation.scoring import (
    class_iou,
    class_map,
    confusion,
    matrix_statistic,
    segmentation_metrics,
    sliding_logits,
    window_starts,
)
from ccop_eval.segmentation.training import rate_factor
from ccop_eval.settings import SegmentationSettings
from PIL import Image

from ccop_hub.architectures import ResNetFPN
from ccop_hub.errors import UserError
from ccop_hub.sources.resolve import resolve


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, drawn_scenes):
    """Two folders of drawn scenes with ground and object as classes; in `shuffled` an image has another's labels."""
    root = tmp_path_factory.mktemp("scenes")
    for split in ("train", "val"):
        labels = sorted((drawn_scenes / "semantic" / f"{split}2017").iterdir())
        for number, file in enumerate(labels):
            image = Image.open(next((drawn_scenes / f"{split}2017").glob(f"{file.stem}.*")))
            own, other = (Image.open(path) for path in (file, labels[number - 1]))
            for name, label in (("learnable", own), ("shuffled", other.resize(own.size, Image.Resampling.NEAREST))):
                ids = np.array(label)
                ids[(ids > 0) & (ids < 255)] = 1
                for kind, picture in (("images", image), ("labels", Image.fromarray(ids))):
                    folder = root / name / split / kind
                    folder.mkdir(parents=True, exist_ok=True)
                    picture.save(folder / f"{number:03d}.png")
    for name in ("learnable", "shuffled"):
        (root / name / "classes.txt").write_text("ground\nobject\n")
    return root


def segment(data, out, *flags, iterations=40):
    common = ["--weights", "random", "--arch", "resnet18", "--accelerator", "cpu", "--workers", "0"]
    small = ["--scale_to", "[0,0]", "--crop_size", "64", "--stride", "48", "--batch_size", "8"]
    counts = ["--iterations", str(iterations)]
    return main(["segmentation", *common, *small, *counts, "--data", str(data), "--out", str(out), *flags])


def test_learnable_classes_are_learnt_and_shuffled_ones_are_not(scenes, tmp_path):
    protocol = ["--protocol", "cityscapes-fcn16-150ep", "--scale_to", "[128,128]", "--crop_size", "128", "--lr", "1e-3"]
    for name in ("learnable", "shuffled"):
        assert segment(scenes / name, tmp_path / name, *protocol, iterations=40) == 0
    learnable, shuffled = (Result.read(tmp_path / name) for name in ("learnable", "shuffled"))
    assert learnable.per_class["IoU"]["object"] > 30
    assert shuffled.per_class["IoU"]["object"] < 15
    assert learnable.metrics["mIoU"] == pytest.approx(np.mean(list(learnable.per_class["IoU"].values())))
    low, high = learnable.intervals["mIoU"]
    assert low <= learnable.metrics["mIoU"] <= high
    assert learnable.effective_lr == 0.001
    assert learnable.loaded == "backbone"
    expected = "crop_size=128,iterations=40,lr=0.001,scale_to=128/128,stride=48"
    assert learnable.protocol == f"cityscapes-fcn16-150ep+{expected}"
    assert any("SyncBN became BN" in note for note in learnable.notes)
    for name in ("training-crops", "predictions", "colours"):
        assert (tmp_path / "learnable" / "pictures" / f"{name}.png").is_file()


def test_frozen_run_trains_the_head_alone_and_resumes(scenes, tmp_path, monkeypatch):
    from ccop_eval.segmentation import training

    flags = ["--frozen", "--checkpoint_every", "4", "--evaluate_every", "4"]
    assert segment(scenes / "learnable", tmp_path / "whole", *flags, iterations=8) == 0
    stepped = training.Segmentation._step

    def interrupted(self, iteration, *batch):
        if iteration == 6:
            raise KeyboardInterrupt
        return stepped(self, iteration, *batch)

    monkeypatch.setattr(training.Segmentation, "_step", interrupted)
    assert segment(scenes / "learnable", tmp_path / "parts", *flags, iterations=8) == 130
    monkeypatch.undo()
    assert segment(scenes / "learnable", tmp_path / "parts", *flags, "--resume", iterations=8) == 0
    whole, parts = (Result.read(tmp_path / name) for name in ("whole", "parts"))
    assert parts.curve == whole.curve
    assert parts.metrics == whole.metrics
    assert "frozen=1" in whole.protocol
    assert any("bit-identical" in note for note in whole.notes)
    scored = [entry["mIoU"] for entry in whole.curve if "mIoU" in entry]
    assert len(scored) == 2
    assert whole.metrics["best/mIoU"] == max(scored)


CITY_SIZE = (64, 128)


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    """A folder in Cityscapes' layout: blocks of many label ids, ignored ones among them."""
    root = tmp_path_factory.mktemp("cityscapes")
    generator = np.random.default_rng(5)
    for split, count in (("train", 4), ("val", 3)):
        for number in range(count):
            blocks = generator.choice([0, 1, 4, 7, 8, 11, 17, 19, 21, 23, 24, 26, 33], (8, 16)).astype(np.uint8)
            label = np.kron(blocks, np.ones((8, 8), dtype=np.uint8))
            pixels = (label[..., None] * np.array([7, 3, 5]) % 256).astype(np.uint8)
            name = f"ulm_{number:06d}_000019"
            for kind, suffix, array in (("leftImg8bit", "leftImg8bit", pixels), ("gtFine", "gtFine_labelIds", label)):
                folder = root / kind / split / "ulm"
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / f"{name}_{suffix}.png")
    return root


def test_iou_equals_that_of_the_official_scorer(cityscapes, tmp_path):
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official  # noqa: N813

    assert segment(cityscapes, tmp_path / "out", "--save_predictions", iterations=12) == 0
    ours = Result.read(tmp_path / "out")
    truth = sorted((cityscapes / "gtFine" / "val" / "ulm").iterdir())
    predicted = sorted((tmp_path / "out" / "predictions").iterdir())
    assert len(predicted) == 3
    for name, value in (("evalInstLevelScore", False), ("JSONOutput", False), ("quiet", True)):
        setattr(official.args, name, value)
    theirs = official.evaluateImgLists([str(p) for p in predicted], [str(p) for p in truth], official.args)
    assert ours.metrics["mIoU"] / 100 == pytest.approx(theirs["averageScoreClasses"], abs=1e-9)
    compared = 0
    for name, value in ours.per_class["IoU"].items():
        if value is None:
            assert np.isnan(theirs["classScores"][name])
        else:
            assert value / 100 == pytest.approx(theirs["classScores"][name], abs=1e-9)
            compared += 1
    assert compared >= 9
    assert ours.metrics["mIoU"] > 1, "a scorer that finds nothing right would agree with anything"


def test_cityscapes_labels_are_the_official_table(cityscapes):
    table = cityscapes_table()
    assert len(table.classes) == 19
    assert (table.classes[0], table.ids[0]) == ("road", 7)
    assert (table.classes[18], table.ids[18]) == ("bicycle", 33)
    lookup = table.lookup()
    assert lookup[26] == 13
    assert {int(lookup[label]) for label in (0, 4, 9, 29, 255)} == {255}
    data = open_labelled_images(cityscapes, [])
    assert data.cityscapes
    assert (len(data.train.images), len(data.val.images)) == (4, 3)
    with pytest.raises(UserError, match="not for Cityscapes"):
        open_labelled_images(cityscapes, [3])


def test_metrics_equal_a_slow_recomputation():
    generator = np.random.default_rng(6)
    predicted, truth = generator.integers(0, 4, (2, 3, 20, 30))
    truth[generator.random(truth.shape) < 0.2] = 255
    predicted[truth == 3] = 1
    truth[truth == 3] = 2
    predicted[predicted == 3] = 0
    matrices = np.stack(
        [confusion(torch.tensor(p), torch.tensor(t), 4).numpy() for p, t in zip(predicted, truth, strict=True)]
    )
    for counts in ([1, 1, 1], [2, 0, 1]):
        pairs = [
            (int(t), int(p))
            for image, times in enumerate(counts)
            for t, p in zip(truth[image].ravel(), predicted[image].ravel(), strict=True)
            if t != 255
            for _ in range(times)
        ]
        iou = []
        for label in range(3):
            both = sum(t == label and p == label for t, p in pairs)
            iou.append(100 * both / sum(label in pair for pair in pairs))
        values = matrix_statistic(matrices)(np.array(counts))
        assert values["mIoU"] == pytest.approx(np.mean(iou))
        assert values["pixel_accuracy"] == pytest.approx(100 * np.mean([t == p for t, p in pairs]))
    assert np.isnan(class_iou(matrices.sum(0))[3]), "a class that is nowhere has no IoU and no say in the mean"
    assert np.isnan(segmentation_metrics(np.zeros((2, 2), dtype=int))["mIoU"])


def test_windows_cover_every_pixel_and_average():
    for length, window, stride in ((2049, 769, 513), (1025, 769, 513), (100, 769, 513), (770, 769, 513)):
        starts = window_starts(length, window, stride)
        covered = np.zeros(length, dtype=int)
        for start in starts:
            covered[start : start + window] += 1
        assert covered.min() >= 1
        assert starts[-1] + min(window, length) == length
    assert window_starts(2049, 769, 513) == [0, 513, 1026, 1280]

    def network(crop):
        return torch.full((1, 1, *crop.shape[-2:]), float(crop[0, 0, 0, 0]))

    image = torch.arange(12.0).view(1, 1, 2, 6)
    logits = sliding_logits(network, image, window=4, stride=2)
    assert logits[0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(sliding_logits(network, image, window=4, stride=0), torch.zeros(1, 1, 2, 6))


def test_logits_reach_the_labels_size_by_aligned_corners():
    logits = torch.tensor([[[[0.0, 1.0]], [[0.6, 0.6]]]])
    assert class_map(logits, (1, 5)).tolist() == [[1, 1, 1, 0, 0]]


def test_network_is_the_backbone_at_stride_16():
    weights = resolve("random", "resnet50", 1)
    network = Fcn16(weights, 3, dilation=6, seed=0, frozen=False).eval()
    plain = ResNetFPN("resnet50").eval()
    plain.load_state_dict(dict(weights.tensors))
    image = torch.rand(1, 3, 65, 97) * 255
    with torch.no_grad():
        features = network.backbone.forward_features((image - network.mean) / network.std)
        stage4 = plain.stages((image - network.mean) / network.std)["res4"]
        assert features.shape[-2:] == stage4.shape[-2:]
        assert network(image).shape == (1, 3, 65, 97)
    dilations = [
        layer.dilation for layer in network.backbone.layer4.modules() if getattr(layer, "kernel_size", 0) == (3, 3)
    ]
    assert dilations == [(2, 2)] * 3
    head = [layer for layer in network.head if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.kernel_size, layer.dilation, layer.out_channels) for layer in head] == [
        ((3, 3), (6, 6), 256),
        ((3, 3), (6, 6), 256),
        ((1, 1), (1, 1), 3),
    ]


def test_crop_moves_image_and_label_together():
    label = np.zeros((40, 60), dtype=np.uint8)
    label[10:20, 30:50] = 1
    image = Image.fromarray(np.repeat(label[..., None] * 255, 3, axis=2))
    protocol = dataclasses.replace(SEGMENTATION_PROTOCOLS["cityscapes-fcn16-90k"], scale_to=(0, 0), crop_size=48)
    for seed in range(20):
        pixels, classes = random_crop(image, label, protocol, random.Random(seed))
        assert pixels.shape == (48, 48, 3)
        inside = classes != 255
        agree = (pixels[..., 0] > 127) == (classes == 1)
        assert agree[inside].mean() > 0.97
        assert (pixels[~inside] == [124, 116, 104]).all()


def test_rates_of_both_schedules():
    steps = SEGMENTATION_PROTOCOLS["cityscapes-fcn16-90k"]
    factors = [rate_factor(iteration, steps) for iteration in (0, 62_999, 63_000, 80_999, 81_000)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    poly = in_iterations(SEGMENTATION_PROTOCOLS["cityscapes-fcn16-150ep"], 2975)
    assert poly.iterations == 150 * 372
    assert rate_factor(poly.iterations // 2, poly) == pytest.approx(0.5**0.9)


def test_protocol_id_is_plain_without_departures(tmp_path):
    settings = SegmentationSettings(weights="w", out=tmp_path, data=tmp_path, protocol="cityscapes-fcn16-150ep")
    assert apply_settings(SEGMENTATION_PROTOCOLS[settings.protocol], settings)[1] == "cityscapes-fcn16-150ep"


def make_folder(root, ids, image_size=(8, 6)):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", image_size).save(root / split / "images" / "a.jpg")
        Image.fromarray(np.array(ids, dtype=np.uint8)).save(root / split / "labels" / "a.png")
    return root


def test_classes_of_a_folder_without_names_are_its_ids(tmp_path):
    data = open_labelled_images(make_folder(tmp_path, [[3, 5, 11, 255]], (4, 1)), ignore=[11])
    assert data.table.ids == [3, 5]
    _, label = data.read(data.val, 0)
    assert label.tolist() == [[0, 1, 255, 255]]


def test_mistakes_in_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match="is no segmentation data"):
        open_labelled_images(tmp_path, [])
    data = open_labelled_images(make_folder(tmp_path / "size", [[0, 1]]), [])
    with pytest.raises(UserError, match="must have its image's size"):
        data.read(data.val, 0)
    root = make_folder(tmp_path / "names", [[0, 1]])
    (root / "classes.txt").write_text("only\n")
    with pytest.raises(UserError, match=r"has id 1, .* names 1 classes"):
        open_labelled_images(root, [])
    (root / "val" / "labels" / "a.png").unlink()
    with pytest.raises(UserError, match="have no label"):
        open_labelled_images(root, [])
    colour = make_folder(tmp_path / "colour", np.zeros((6, 8, 3)))
    with pytest.raises(UserError, match="not a PNG of 8-bit class ids"):
        open_labelled_images(colour, [])


def test_semantic_folder_of_a_coco_set(tmp_path, scenes):
    for split in ("train", "val"):
        (tmp_path / "semantic").mkdir(exist_ok=True)
        (tmp_path / f"{split}2017").symlink_to(scenes / "learnable" / split / "images")
        (tmp_path / "semantic" / f"{split}2017").symlink_to(scenes / "learnable" / split / "labels")
    (tmp_path / "semantic" / "classes.txt").write_text("ground\nobject\n")
    data = open_labelled_images(tmp_path, [])
    assert data.table.classes == ["ground", "object"]
    assert len(data.train.images) == 30
    assert json.dumps(data.table.ids) == "[0, 1]"
