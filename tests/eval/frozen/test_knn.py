import numpy as np
import pytest
from ccop_eval.cli import main
from ccop_eval.frozen import knn
from ccop_eval.results.result import Result

from ccop_hub.errors import UserError


def run_knn(data, out, cache, *flags):
    common = ["--weights", "random", "--backbone", "resnet18", "--accelerator", "cpu", "--workers", "0"]
    return main(
        ["knn", *common, "--image_size", "64", "--data", str(data), "--out", str(out), "--cache", str(cache), *flags]
    )


def test_learnable_labels_are_found_and_shuffled_ones_are_not(image_folders, seeing_weights, tmp_path):
    for name in ("learnable", "shuffled"):
        flags = ["--weights", str(seeing_weights), "--against", str(seeing_weights), "--neighbours", "[5,10,200]"]
        assert run_knn(image_folders / name, tmp_path / name, tmp_path / "cache", *flags) == 0
    learnable, shuffled = (Result.read(tmp_path / name) for name in ("learnable", "shuffled"))
    assert learnable.metrics["k5/top1"] > 75
    assert shuffled.metrics["k5/top1"] < 65
    assert set(learnable.metrics) == {"k5/top1", "k10/top1"}, "200 neighbours are more than there are images"
    assert "k = 200 left out" in learnable.notes[0]
    assert learnable.protocol == "knn+image_size=64,neighbours=5/10/200"
    assert learnable.paired["k5/top1"].low == learnable.paired["k5/top1"].high == 0
    per_class = learnable.per_class["k5/top1"]
    assert np.mean(list(per_class.values())) == pytest.approx(learnable.metrics["k5/top1"])
    assert (tmp_path / "learnable" / "pictures" / "nearest-images.png").is_file()


def test_second_run_reads_its_features(image_folders, tmp_path, monkeypatch):
    data = image_folders / "learnable"
    assert run_knn(data, tmp_path / "one", tmp_path / "cache", "--against", "null") == 0
    monkeypatch.setattr(knn, "image_features", lambda *_: pytest.fail)
    assert run_knn(data, tmp_path / "two", tmp_path / "cache", "--against", "null") == 0
    assert Result.read(tmp_path / "two").metrics == Result.read(tmp_path / "one").metrics


def test_too_few_images_for_every_k():
    with pytest.raises(UserError, match="fewer than every k"):
        knn.usable_neighbours((10, 20), 9)


def test_features_that_are_not_finite_are_refused(image_folders, overflowing_weights, tmp_path, capsys):
    flags = ["--weights", str(overflowing_weights), "--against", "null"]
    assert run_knn(image_folders / "learnable", tmp_path / "out", tmp_path / "cache", *flags) == 2
    message = capsys.readouterr().err
    assert "are not finite" in message
    assert ".png" in message, "the image is named"
    assert "Traceback" not in message
    assert message.strip().splitlines()[-1].startswith("ccop-eval: ")
    assert not (tmp_path / "out" / "result.json").exists()
