"""A small folder of scenes with its proposals, made once."""

from pathlib import Path

import numpy as np
import pytest
from ccop_pretrain.proposals.run import run as proposals
from ccop_pretrain.settings import ProposalSettings, RunSettings
from PIL import Image, ImageDraw

from ..small_run import SMALL_RUN

SCENES = 14


def draw_scene(seed, size=(96, 72)):
    rng = np.random.default_rng(seed)
    noise = rng.integers(90, 166, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        left, top = rng.integers(0, size[0] - 30), rng.integers(0, size[1] - 30)
        width, height = rng.integers(22, 44, 2)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((left, top, left + width, top + height), fill=colour)
    return image


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for index in range(SCENES):
        draw_scene(index).save(folder / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="session")
def scene_proposals(scenes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("proposals") / "p"
    proposals(ProposalSettings(images=scenes, out=folder, workers=1))
    return folder


@pytest.fixture
def tiny_run(scenes, scene_proposals, tmp_path):
    """Settings of a five-step run that takes seconds."""

    def make(**changed):
        settings = {
            **SMALL_RUN,
            "images": scenes,
            "proposals": scene_proposals,
            "out": tmp_path / "run",
            "backbone": "resnet18",
            "steps": 5,
            "save_every": 2,
            "tensorboard": False,
        }
        return RunSettings(**{**settings, **changed})

    return make
