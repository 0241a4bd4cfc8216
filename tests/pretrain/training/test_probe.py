import math

import numpy as np
import pytest
import torch
from ccop_pretrain.training.probe import Change, LabelledFolder, accuracy
from PIL import Image

from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.errors import UserError


@pytest.fixture
def labelled(tmp_path):
    """Red and blue images, which any network can distinguish."""
    rng = np.random.default_rng(0)
    for name, colour in (("blue", (20, 20, 220)), ("red", (220, 20, 20))):
        (tmp_path / name).mkdir()
        for index in range(6):
            pixels = np.uint8(colour) + rng.integers(0, 30, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return tmp_path


def test_classes_that_look_apart_are_told_and_mixed_ones_are_not(labelled, monkeypatch):
    monkeypatch.setattr("ccop_pretrain.training.probe.NEIGHBOURS", 3)
    network = build_resnet_fpn("test_resnet", 0)
    folder = LabelledFolder(labelled, 32)
    assert accuracy(folder.hits(network)) == 1.0
    folder.labels = torch.arange(12) % 2
    assert accuracy(folder.hits(network)) < 1.0


def test_the_network_and_the_generator_are_left_as_they_were(labelled):
    network = build_resnet_fpn("test_resnet", 0).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    LabelledFolder(labelled, 32).hits(network)
    assert network.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_unreadable_images_neither_vote_nor_count(labelled, monkeypatch, caplog):
    monkeypatch.setattr("ccop_pretrain.training.probe.NEIGHBOURS", 3)
    monkeypatch.setattr("ccop_pretrain.training.probe.BATCH", 2)
    for name in ("blue/2.png", "blue/3.png", "red/5.png"):
        (labelled / name).write_bytes(b"no image")
    folder = LabelledFolder(labelled, 32)
    network = build_resnet_fpn("test_resnet", 0)
    assert accuracy(folder.hits(network)) == accuracy(folder.hits(network)) == 1.0
    assert folder.hits(network).tolist() == [1, 1, -1, -1, 1, 1, 1, 1, 1, 1, 1, -1]
    assert list(folder.skipped.reasons()) == ["blue/2.png", "blue/3.png", "red/5.png"]
    assert caplog.text.count("3 images skipped: blue/2.png") == 1
    for path in labelled.rglob("*.png"):
        path.write_bytes(b"no image")
    assert math.isnan(accuracy(folder.hits(network)))
    assert "fewer than two images can be read" in caplog.text


def test_a_folder_without_classes_is_refused(labelled):
    with pytest.raises(UserError, match="not a labelled data set"):
        LabelledFolder(labelled / "red", 32)


def hits(*runs):
    """(value, count) pairs, one after the other."""
    return torch.cat([torch.full((count,), value, dtype=torch.int8) for value, count in runs])


def test_a_change_is_paired_over_the_images():
    start, now = hits((1, 100), (0, 300)), hits((1, 160), (0, 240))
    change = Change.between(start, now)
    assert (change.start, change.now, change.images) == (0.25, 0.4, 400)
    # 60 of 400 images won and none lost: the standard error of the mean is sqrt(0.15 * 0.85 / 400).
    error = math.sqrt(0.15 * 0.85 / 400)
    assert change.low == pytest.approx(0.15 - 1.96 * error, abs=0.004)
    assert change.high == pytest.approx(0.15 + 1.96 * error, abs=0.004)
    assert change.is_better
    assert str(change).startswith("better than at the start by +15.0 points [1")
    assert Change.between(start, now) == change


def test_changes_that_cancel_are_no_better():
    start, now = hits((1, 50), (0, 50)), hits((0, 48), (1, 52))
    change = Change.between(start, now)
    assert change.figures["knn_change"] == pytest.approx(0.02)
    assert change.low < -0.1 < 0.1 < change.high
    assert str(change).startswith("not better than at the start: +2.0 points [-")


def test_only_images_read_both_times_are_compared():
    change = Change.between(hits((-1, 2), (0, 3), (1, 1)), hits((1, 4), (1, 1), (-1, 1)))
    assert (change.start, change.now, change.images) == (0.0, 1.0, 3)
    nothing = Change.between(hits((-1, 3)), hits((1, 3)))
    assert nothing.images == 0
    assert not nothing.is_better
