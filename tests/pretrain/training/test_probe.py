import math

import numpy as np
import pytest
import torch
from ccop_pretrain.training.probe import LabelledFolder
from PIL import Image

from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.errors import UserError


@pytest.fixture
def labelled(tmp_path):
    """Red and blue images: any network distinguishes them."""
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
    assert folder.accuracy(network) == 1.0
    folder.labels = torch.arange(12) % 2
    assert folder.accuracy(network) < 1.0


def test_the_network_and_the_generator_are_left_as_they_were(labelled):
    network = build_resnet_fpn("test_resnet", 0).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    LabelledFolder(labelled, 32).accuracy(network)
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
    assert folder.accuracy(network) == folder.accuracy(network) == 1.0
    assert list(folder.skipped.reasons()) == ["blue/2.png", "blue/3.png", "red/5.png"]
    assert caplog.text.count("3 images skipped: blue/2.png") == 1
    for path in labelled.rglob("*.png"):
        path.write_bytes(b"no image")
    assert math.isnan(folder.accuracy(network))
    assert "fewer than two images can be read" in caplog.text


def test_a_folder_without_classes_is_refused(labelled):
    with pytest.raises(UserError, match="no labelled folder"):
        LabelledFolder(labelled / "red", 32)
