import dataclasses
import signal

import numpy as np
import pytest
import torch
from ccop_eval.cli import main
from ccop_eval.protocols import SEGMENTATION_PROTOCOLS, apply_settings
from ccop_eval.results.result import Result
from ccop_eval.segmentation.run import check_windows
from ccop_eval.settings import SegmentationSettings

from ccop_hub.errors import UserError


def segment(data, out, *flags, iterations=40, side=0, crop=64):
    common = ["--weights", "random", "--backbone", "resnet18", "--accelerator", "cpu", "--workers", "0"]
    small = ["--scale_to", f"[{side},{side}]", "--crop_size", str(crop), "--stride", "48", "--batch_size", "8"]
    counts = ["--iterations", str(iterations)]
    return main(["segmentation", *common, *small, *counts, "--data", str(data), "--out", str(out), *flags])


def test_learnable_classes_are_learnt_and_shuffled_ones_are_not(scenes, tmp_path):
    protocol = ["--protocol", "cityscapes-fcn16-150ep", "--lr", "1e-3"]
    for name in ("learnable", "shuffled"):
        assert segment(scenes / name, tmp_path / name, *protocol, iterations=40, side=96, crop=96) == 0
    learnable, shuffled = (Result.read(tmp_path / name) for name in ("learnable", "shuffled"))
    assert learnable.per_class["IoU"]["object"] > 20
    assert shuffled.per_class["IoU"]["object"] < 10
    assert learnable.metrics["mIoU"] == pytest.approx(np.mean(list(learnable.per_class["IoU"].values())))
    low, high = learnable.intervals["mIoU"]
    assert low <= learnable.metrics["mIoU"] <= high
    assert learnable.effective_lr == 0.001
    assert learnable.loaded == "backbone"
    expected = "crop_size=96,iterations=40,lr=0.001,scale_to=96/96,stride=48"
    assert learnable.protocol == f"cityscapes-fcn16-150ep+{expected}"
    assert any("SyncBN became BN" in note for note in learnable.notes)
    for name in ("training-crops", "predictions"):
        assert (tmp_path / "learnable" / "pictures" / f"{name}.png").is_file()


def test_frozen_run_trains_the_head_alone_and_resumes(scenes, tmp_path, monkeypatch):
    from ccop_eval.segmentation import training

    flags = ["--frozen", "--save_every", "4", "--evaluate_every", "4"]
    assert segment(scenes / "learnable", tmp_path / "whole", *flags, iterations=8) == 0
    stepped = training.Segmentation._step

    def interrupted(self, iteration, *batch):
        if iteration == 4:
            signal.raise_signal(signal.SIGINT)
        return stepped(self, iteration, *batch)

    monkeypatch.setattr(training.Segmentation, "_step", interrupted)
    assert segment(scenes / "learnable", tmp_path / "parts", *flags, iterations=8) == 130
    monkeypatch.undo()
    state = torch.load(tmp_path / "parts" / "state.ckpt", weights_only=True)
    assert state["iteration"] == 5, "the state of the last step is saved, not that of the last period"
    assert segment(scenes / "learnable", tmp_path / "parts", *flags, iterations=8) == 0
    whole, parts = (Result.read(tmp_path / name) for name in ("whole", "parts"))
    assert parts.curve == whole.curve
    assert parts.metrics == whole.metrics
    assert "frozen=1" in whole.protocol
    assert any("bit-identical" in note for note in whole.notes)
    scored = [entry["mIoU"] for entry in whole.curve if "mIoU" in entry]
    assert len(scored) == 2
    assert whole.metrics["best/mIoU"] == max(scored)


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


def test_protocol_id_is_plain_without_departures(tmp_path):
    settings = SegmentationSettings(weights="w", out=tmp_path, data=tmp_path, protocol="cityscapes-fcn16-150ep")
    assert apply_settings(SEGMENTATION_PROTOCOLS[settings.protocol], settings)[1] == "cityscapes-fcn16-150ep"


def test_loss_that_is_not_finite_stops_the_run(scenes, tmp_path, capsys):
    assert segment(scenes / "learnable", tmp_path / "out", "--lr", "1e30", iterations=20) == 2
    message = capsys.readouterr().err
    assert "at iteration" in message
    assert "--lr" in message
    assert "Traceback" not in message
    assert message.strip().splitlines()[-1].startswith("ccop-eval: ")
    assert not (tmp_path / "out" / "result.json").exists()


def test_ignored_and_mapped_labels_are_part_of_the_protocol(tmp_path):
    settings = SegmentationSettings("w", tmp_path, tmp_path, ignore=[11, 3], label_map=["255:1"])
    _, protocol = apply_settings(SEGMENTATION_PROTOCOLS[settings.protocol], settings, further=("ignore", "label_map"))
    assert protocol == "cityscapes-fcn16-90k+ignore=11/3,label_map=255:1"


def test_test_windows_without_gaps():
    protocol = dataclasses.replace(SEGMENTATION_PROTOCOLS["cityscapes-fcn16-90k"], crop_size=32, stride=33)
    with pytest.raises(UserError, match=r"--stride 33 is larger than --crop-size 32.*use --stride 32 or less"):
        check_windows(protocol)
    check_windows(dataclasses.replace(protocol, stride=32))
