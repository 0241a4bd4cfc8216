"""Fixtures shared by the evaluation tests."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ccop_eval.results.result import Against, DataIdentity, Engine, Interval, Result, WeightsIdentity
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.functional import pil_to_tensor

from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.formats.checkpoint import save_checkpoint
from ccop_hub.formats.tensor_use import TensorUse
from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD


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
        "against": Against(
            weights=WeightsIdentity(name="theirs", digest="sha256:2", arch="resnet18"),
            loaded="backbone",
            tensors=TensorUse(),
            metrics={"top1": 50.25},
        ),
    }
    return Result(**{**values, **changes})


@pytest.fixture(name="make_result")
def make_result_fixture():
    """Factory of small, complete, paired results; keyword arguments override fields."""
    return make_result


KINDS = ("ground", "object")
"""Classes of the crops. The scenes' shapes do not serve as classes, since only a trained network separates them."""

CUT = 32
"""Side of a crop, in pixels."""


@pytest.fixture(scope="session")
def drawn_scenes(tmp_path_factory):
    """Output of `ccop-pretrain scenes`: 30 train and 10 val images of 128 pixels, boxes, label images, crops."""
    out = tmp_path_factory.mktemp("drawn") / "scenes"
    program = Path(sys.executable).with_name("ccop-pretrain")
    flags = ["--images", "40", "--clutter", "0", "--size", "128", "--workers", "1"]
    subprocess.run([program, "scenes", "--out", out, *flags], check=True, capture_output=True, timeout=900)
    return out


def ground_boxes(label, count, generator):
    """At most `count` object-free squares of a label image, xyxy in pixels."""
    windows = np.lib.stride_tricks.sliding_window_view(label, (CUT, CUT))
    corners = np.argwhere((windows == 0).all((2, 3)))
    chosen = corners[generator.permutation(len(corners))[:count]].tolist()
    return [[left, top, left + CUT, top + CUT] for top, left in chosen]


@pytest.fixture(scope="session", name="ground_boxes")
def ground_boxes_fixture():
    """The function that finds object-free squares."""
    return ground_boxes


@pytest.fixture(scope="session")
def cut_outs(drawn_scenes):
    """Equally many pictures per class and split: `{"train": {"ground": [...], "object": [...]}, "val": ...}`.

    Objects are the data set's crops of any class; grounds are cropped from object-free parts of its images.
    """
    generator = np.random.default_rng(0)
    found = {}
    for split, count in (("train", 48), ("val", 20)):
        crops = sorted((drawn_scenes / "crops" / split).rglob("*.png"), key=lambda path: path.name)
        objects = [Image.open(path).convert("RGB") for path in crops]
        grounds = []
        for file in sorted((drawn_scenes / "semantic" / f"{split}2017").iterdir()):
            image = Image.open(next((drawn_scenes / f"{split}2017").glob(f"{file.stem}.*"))).convert("RGB")
            grounds += [image.crop(box) for box in ground_boxes(np.asarray(Image.open(file)), 2, generator)]
        found[split] = {"ground": grounds[:count], "object": objects[:count]}
        assert all(len(pictures) == count for pictures in found[split].values())
    return found


@pytest.fixture(scope="session")
def seeing_weights(cut_outs, tmp_path_factory):
    """A checkpoint folder of an untrained resnet18 with FPN and BN statistics estimated on the crops.

    With default statistics, an untrained network's features hardly differ between pictures.
    """
    network = build_resnet_fpn("resnet18", seed=0).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # makes the running statistics means over all batches
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    with torch.no_grad():
        for start in (0, 24):
            batch = [picture for pictures in cut_outs["train"].values() for picture in pictures[start : start + 24]]
            pixels = torch.stack([pil_to_tensor(picture.resize((64, 64))) for picture in batch])
            network((pixels - mean) / std)
    folder = tmp_path_factory.mktemp("seeing")
    save_checkpoint(folder, network.state_dict(), {"arch": "resnet18"})
    return folder


@pytest.fixture(scope="session")
def image_folders(cut_outs, tmp_path_factory):
    """Two class-per-folder data sets, `learnable` and `shuffled`, with the same pictures; the latter's are shuffled."""
    root = tmp_path_factory.mktemp("folders")
    generator = np.random.default_rng(0)
    for split, kinds in cut_outs.items():
        for kind, pictures in kinds.items():
            for number, picture in enumerate(pictures):
                any_kind = KINDS[int(generator.integers(len(KINDS)))]
                for name, folder in (("learnable", kind), ("shuffled", any_kind)):
                    target = root / name / split / folder
                    target.mkdir(parents=True, exist_ok=True)
                    picture.save(target / f"{kind}-{number:03d}.png")
    return root


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """A checkpoint folder of an untrained resnet18 with FPN, for runs that need a file."""
    folder = tmp_path_factory.mktemp("weights")
    save_checkpoint(folder, build_resnet_fpn("resnet18", seed=5).state_dict(), {"arch": "resnet18"})
    return folder


@pytest.fixture
def run_cli():
    """Function that runs `ccop-eval` in a subprocess and returns its output."""

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "ccop_eval", *arguments], capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def overflowing_weights(tmp_path_factory):
    """A file of finite tensors whose features overflow to infinity, as in a diverged network."""
    tensors = dict(build_resnet_fpn("resnet18", seed=5).state_dict())
    for name in ("backbone.layer4.1.bn1.weight", "backbone.layer4.1.bn2.weight"):
        tensors[name] = torch.full_like(tensors[name], 3e38)
    file = tmp_path_factory.mktemp("overflowing") / "weights.safetensors"
    save_file(tensors, file)
    return file
