"""What the evaluation tests share."""

import subprocess
import sys

import numpy as np
import pytest
from ccop_eval.results import Baseline, DataIdentity, Engine, Interval, Result, TensorUse, WeightsIdentity
from PIL import Image

from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.checkpoint import save_checkpoint


def make_result(**changes):
    values = {
        "task": "linear",
        "protocol": "linear-sweep",
        "engine": Engine(name="lightning", version="2.6", compiled=None),
        "weights": WeightsIdentity(name="mine", digest="sha256:1", arch="resnet18", facts={"steps": 3}),
        "loaded": "backbone",
        "tensors": TensorUse(used=["backbone.conv1.weight"]),
        "data": DataIdentity(name="toy", digest="sha256:d", images=12),
        "metrics": {"top1": 51.25, "top5": 90.0},
        "seed": 3,
        "per_class": {"accuracy": {"cat": 10.0}},
        "curve": [{"step": 10, "top1": 30.0}],
        "intervals": {"top1": (50.0, 52.0)},
        "paired": {"top1": Interval(difference=1.0, low=-1.0, high=3.0)},
        "baseline": Baseline(
            weights=WeightsIdentity(name="theirs", digest="sha256:2", arch="resnet18"),
            loaded="backbone",
            tensors=TensorUse(),
            metrics={"top1": 50.25},
        ),
    }
    return Result(**{**values, **changes})


@pytest.fixture(name="make_result")
def make_result_fixture():
    """A function that makes a small, complete, paired result; keywords replace fields."""
    return make_result


MOTIFS = {"stripes": (220, 60, 40), "discs": (50, 190, 60), "grid": (60, 80, 220), "rings": (220, 210, 60)}
"""Classes of the drawn images, by texture and colour: what even an untrained network's features tell apart."""


def draw_motif(kind, size, generator):
    """A (size, size) RGB picture filled with one motif on a random grey, at a random phase, with some noise."""
    front = np.array(MOTIFS[kind]) + generator.normal(0, 15, 3)
    back = np.full(3, generator.integers(40, 200))
    y, x = np.mgrid[0:size, 0:size] + generator.integers(0, 16, (2, 1, 1))
    radius = np.hypot(x % 16 - 8, y % 16 - 8)
    mask = {
        "stripes": (x + y) % 8 < 4,
        "discs": radius < 6,
        "grid": (x % 16 < 3) | (y % 16 < 3),
        "rings": (radius > 3) & (radius < 6),
    }[kind]
    pixels = np.where(mask[..., None], front, back) + generator.normal(0, 8, (size, size, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_scene(size, objects, generator, classes=("stripes", "discs")):
    """A picture of textured boxes on plain ground: image, (size, size) class ids (0 = ground), xyxy boxes, classes."""
    ground = generator.integers(60, 200, 3)
    image = Image.fromarray(np.full((size, size, 3), ground, dtype=np.uint8))
    label = np.zeros((size, size), dtype=np.uint8)
    boxes, kinds = [], []
    cells = generator.permutation(4)[:objects]
    half = size // 2
    for cell in cells.tolist():
        kind = int(generator.integers(len(classes)))
        side = int(generator.integers(half * 3 // 5, half - 1))
        left = cell % 2 * half + int(generator.integers(0, half - side))
        top = cell // 2 * half + int(generator.integers(0, half - side))
        image.paste(draw_motif(classes[kind], side, generator), (left, top))
        label[top : top + side, left : left + side] = kind + 1
        boxes.append([left, top, left + side, top + side])
        kinds.append(kind)
    return image, label, boxes, kinds


@pytest.fixture(scope="session")
def image_folders(tmp_path_factory):
    """Two image sets in class folders, `learnable` and `shuffled`: the same pictures, in the latter in any folder."""
    root = tmp_path_factory.mktemp("folders")
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 10)):
        for label, kind in enumerate(MOTIFS):
            for number in range(count):
                picture = draw_motif(kind, 64, generator)
                any_kind = list(MOTIFS)[int(generator.integers(len(MOTIFS)))]
                for name, folder in (("learnable", kind), ("shuffled", any_kind)):
                    target = root / name / split / folder
                    target.mkdir(parents=True, exist_ok=True)
                    picture.save(target / f"{label}-{number:03d}.png")
    return root


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """A checkpoint folder of an untrained resnet18 with its pyramid, for runs that need a file."""
    folder = tmp_path_factory.mktemp("weights")
    save_checkpoint(folder, build_resnet_fpn("resnet18", seed=5).state_dict(), {"arch": "resnet18"})
    return folder


@pytest.fixture
def run_cli():
    """A function that runs `ccop-eval` in processes of its own and returns what it printed."""

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "ccop_eval", *arguments], capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture(scope="session", name="draw_motif")
def draw_motif_fixture():
    """The function that draws a picture of one class."""
    return draw_motif


@pytest.fixture(scope="session", name="draw_scene")
def draw_scene_fixture():
    """The function that draws a picture with objects in it."""
    return draw_scene


@pytest.fixture(scope="session")
def motifs():
    """The classes of drawn pictures."""
    return list(MOTIFS)
