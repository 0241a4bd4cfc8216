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
from ccop_eval.demonstration import patches
from ccop_eval.demonstration import run as demo
from ccop_eval.demonstration.patches import CLASSES, SHOWN_SIDE, Patches, draw_patches
from torch import Tensor

from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.formats.checkpoint import save_checkpoint
from ccop_hub.sources import registry
from ccop_hub.synthetic.painting import NO_OBJECT, Scene

ARCH = "test_resnet"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Few objects, an empty working folder, and no network."""

    def refuse(*_: object) -> None:
        raise AssertionError("the demo opened a connection")

    monkeypatch.setattr(demo, "LABELLED", 50)
    monkeypatch.setattr(demo, "SCORED", 50)
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


def test_squares_are_of_both_classes_alike_and_differ_between_draws() -> None:
    drawn = draw_patches(seed=0, draw=0, per_class=4)
    assert drawn.pixels.shape == (4 * len(CLASSES), SHOWN_SIDE, SHOWN_SIDE, 3)
    assert np.bincount(drawn.labels).tolist() == [4, 4]
    assert set(drawn.owners) <= set(range(drawn.images))
    again, other = draw_patches(0, 0, 4), draw_patches(0, 1, 4)
    assert np.array_equal(drawn.pixels, again.pixels)
    assert not np.array_equal(drawn.pixels, other.pixels)


def test_squares_show_what_their_class_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """On white objects and a black background, the mean of the pixels is the share of objects."""
    instances = np.full((96, 96), NO_OBJECT, np.int16)
    instances[20:80, 20:60] = 0
    image = np.repeat(np.where(instances == 0, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    monkeypatch.setattr(patches, "paint_scene", lambda *_: Scene(image, instances, ["box"]))
    drawn = draw_patches(0, 0, 3)
    share = drawn.pixels.mean((1, 2, 3)) / 255
    assert (share[drawn.labels == 0] < patches.MOST_BACKGROUND + 0.02).all()
    assert (share[drawn.labels == 1] > patches.LEAST_OBJECT - 0.02).all()


@pytest.mark.usefixtures("few")
def test_print_both_numbers_chance_and_the_next_step(
    weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "run", functools.cache(demo.run))
    assert main(["demo", "--weights", str(weights), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["backbone"], found["chance"], found["scored"]) == (ARCH, 50.0, 100)
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
    monkeypatch.setattr(demo, "SCORED", 300)

    def striped(seed: int, draw: int, per_class: int, progress: object = None) -> Patches:
        """Squares with a light stripe, in another place for each class."""
        labels = np.repeat(np.arange(len(CLASSES)), per_class)
        pixels = np.zeros((len(labels), SHOWN_SIDE, SHOWN_SIDE, 3), np.uint8)
        for square, label in zip(pixels, labels, strict=True):
            square[:, 20 * label : 20 * label + 20] = 200
        return Patches(pixels, labels, np.arange(len(labels)), len(labels))

    monkeypatch.setattr(demo, "draw_patches", striped)
    monkeypatch.setattr(demo, "FrozenNetwork", Averages)
    seen, noise = (demo.run(demo.DemoSettings(weights=str(weights), noise=noise)) for noise in (False, True))
    assert seen.accuracy["trained"] == 100.0
    low, high = noise.intervals["trained"]
    assert low <= noise.chance <= high
    assert 40 < noise.accuracy["trained"] < 60


@pytest.mark.usefixtures("few")
def test_without_packaged_weights_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "REGISTRY", {})
    assert main(["demo"]) == 2
    assert "give --weights" in capsys.readouterr().err
