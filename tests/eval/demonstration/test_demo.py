"""The demo measures what it says, on few objects; nothing is trained."""

from __future__ import annotations

import functools
import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from ccop_eval.cli import main
from ccop_eval.demonstration import run as demo
from ccop_eval.demonstration.objects import CROP_SIDE, Objects, draw_objects
from torch import Tensor

from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.formats.checkpoint import save_checkpoint
from ccop_hub.sources import registry
from ccop_hub.synthetic.shapes import SHAPES

ARCH = "test_resnet"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Few objects, an empty working folder, and no network."""

    def refuse(*_: object) -> None:
        raise AssertionError("the demo opened a connection")

    monkeypatch.setattr(demo, "LABELLED", 10)
    monkeypatch.setattr(demo, "SCORED", 10)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    network = build_resnet_fpn(ARCH, seed=7)
    save_checkpoint(folder, {f"backbone.{n}": v for n, v in network.backbone.state_dict().items()}, {"arch": ARCH})
    return folder


def test_objects_are_of_every_class_alike_and_inside_their_crops() -> None:
    drawn = draw_objects(seed=0, draw=0, per_class=2)
    assert drawn.crops.shape == (2 * len(SHAPES), CROP_SIDE, CROP_SIDE, 3)
    assert np.bincount(drawn.labels).tolist() == [2] * len(SHAPES)
    assert set(drawn.owners) <= set(range(drawn.images))
    again, other = draw_objects(0, 0, 2), draw_objects(0, 1, 2)
    assert np.array_equal(drawn.crops, again.crops)
    assert not np.array_equal(drawn.crops, other.crops)
    # The object is in the middle of its crop: there is something to see.
    middle = drawn.crops[:, CROP_SIDE // 4 : -CROP_SIDE // 4, CROP_SIDE // 4 : -CROP_SIDE // 4]
    assert (middle.reshape(len(middle), -1).std(axis=1) > 1).all()


@pytest.mark.usefixtures("few")
def test_print_both_numbers_chance_and_the_next_step(
    weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "run", functools.cache(demo.run))
    assert main(["demo", "--weights", str(weights), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["backbone"], found["chance"], found["scored"]) == (ARCH, 10.0, 100)
    assert found["difference"]["value"] == pytest.approx(found["trained"] - found["untrained"])
    assert found["intervals"]["trained"][0] <= found["trained"] <= found["intervals"]["trained"][1]
    assert main(["demo", "--weights", str(weights)]) == 0
    told = capsys.readouterr().out
    for value in (found["trained"], found["untrained"], found["chance"]):
        assert f"{value:.1f} %" in told
    assert told.splitlines()[-1].startswith("next: ccop-")
    assert list(Path().iterdir()) == []


class Averages(torch.nn.Module):
    """Stands for a trained network: its features are the colours of 8 x 8 cells."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        cells = torch.nn.functional.adaptive_avg_pool2d(images.float(), 8).flatten(1)[:, :, None, None]
        return {f"res{number}": cells for number in range(2, 6)}


@pytest.mark.usefixtures("few")
def test_noise_leaves_nothing_to_see(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real images, features that show the classes are above chance; with noise, the same features are not."""
    monkeypatch.setattr(demo, "SCORED", 60)

    def coloured(seed: int, draw: int, per_class: int, progress: object = None) -> Objects:
        """Objects of which each class has a light stripe in another place."""
        labels = np.repeat(np.arange(len(SHAPES)), per_class)
        crops = np.zeros((len(labels), CROP_SIDE, CROP_SIDE, 3), np.uint8)
        for crop, label in zip(crops, labels, strict=True):
            crop[:, 6 * label : 6 * label + 6] = 200
        return Objects(crops, labels, np.arange(len(labels)), len(labels))

    monkeypatch.setattr(demo, "draw_objects", coloured)
    monkeypatch.setattr(demo, "FrozenNetwork", Averages)
    seen, noise = (demo.run(demo.DemoSettings(weights=str(weights), noise=noise)) for noise in (False, True))
    assert seen.accuracy["trained"] == 100.0
    low, high = noise.intervals["trained"]
    assert low <= noise.chance <= high
    assert noise.accuracy["trained"] < 20


@pytest.mark.usefixtures("few")
def test_without_packaged_weights_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "REGISTRY", {})
    assert main(["demo"]) == 2
    assert "give --weights" in capsys.readouterr().err
