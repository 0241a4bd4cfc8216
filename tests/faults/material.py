"""Inputs of the commands, made once: synthetic images, their proposals, a tiny run, class folders and a VOC folder."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import yaml
from PIL import Image

from ccop_hub.formats.checkpoint import read_checkpoint

from ..small_run import SMALL_RUN
from .command import Outcome, contents, run

RUN_SETTINGS = {
    **SMALL_RUN,
    "backbone": "test_resnet",
    "steps": 12,
    "save_every": 3,
}

BASIC = ("scenes", "proposals", "run", "linear", "convert")
"""One command for each way of writing: many files, shards, checkpoints, a result, a single file."""

Runner = Callable[[list[object]], Outcome]


@dataclass(frozen=True)
class Writer:
    """A command that writes, and how to check its output.

    Attributes:
        name: its name in the table.
        command: its command line for an output path.
        essence: the reproducible part of its output: name -> digest or value.
        suffix: the output's suffix, if it is a file rather than a folder.
        detection: whether it needs Detectron2.
    """

    name: str
    command: Callable[[Path], list[object]]
    essence: Callable[[Path], object]
    suffix: str = ""
    detection: bool = False


class Material:
    """The inputs of all commands.

    Args:
        root: an empty folder.
        start: runs a command.
    """

    def __init__(self, root: Path, start: Runner = run) -> None:
        self.root, self._start = root, start
        self.scenes, self.proposals = root / "scenes", root / "proposals"
        self.images = self.scenes / "train2017"
        self.run, self.result, self.config = root / "run", root / "result", root / "run.yaml"
        self.classes, self.voc, self.weights = root / "classes", root / "VOC2007", root / "resnet18.pth"
        self.config.write_text(yaml.safe_dump(RUN_SETTINGS))
        self.writers = {writer.name: writer for writer in [*self._pretraining(), *self._hub(), *self._evaluation()]}

    def make(self, *names: str) -> None:
        """Make the inputs: run the named commands, then write the class folders, the VOC folder and the weights."""
        places = {"scenes": self.scenes, "proposals": self.proposals, "run": self.run, "linear": self.result}
        self._make(places, [name for name in names if name != "linear"])
        for number, image in enumerate(sorted(self.images.glob("*"))):
            for split in ("train", "val"):
                folder = self.classes / split / ("even", "odd")[number % 2]
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(image, folder)
        self._write_voc()
        torch.manual_seed(0)
        torch.save(timm.create_model("resnet18", num_classes=0).state_dict(), self.weights)
        self._make(places, [name for name in names if name == "linear"])

    def _make(self, places: dict[str, Path], names: list[str]) -> None:
        for name in names:
            done = self._start(self.writers[name].command(places[name]))
            if done.code:
                raise RuntimeError(f"{name} failed on sound inputs: {done.error}")

    def _write_voc(self) -> None:
        lists = self.voc / "ImageSets" / "Main"
        for folder in (lists, self.voc / "JPEGImages"):
            folder.mkdir(parents=True, exist_ok=True)
        for split in ("trainval", "test"):
            names = []
            for number, file in enumerate(sorted(self.images.glob("*"))):
                names.append(f"{split}{number:03d}")
                Image.open(file).convert("RGB").save(self.voc / "JPEGImages" / f"{names[-1]}.jpg")
            for offset, name in enumerate(("even", "odd")):
                rows = [f"{name} {1 if (row + offset) % 2 == 0 else -1:2d}" for row, name in enumerate(names)]
                (lists / f"{name}_{split}.txt").write_text("\n".join(rows) + "\n")

    def _pretraining(self) -> list[Writer]:
        small: list[object] = ["--workers", 1]
        return [
            Writer(
                "scenes",
                lambda out: ["ccop-pretrain", "scenes", "--out", out, "--images", 16, "--size", 96, *small],
                lambda out: contents(out, lambda path: path.suffix in (".png", ".jpg", ".json")),
            ),
            Writer(
                "proposals",
                lambda out: ["ccop-pretrain", "proposals", self.images, "--out", out, *small],
                lambda out: contents(out, lambda path: path.suffix in (".parquet", ".json", ".csv")),
            ),
            Writer(
                "inspect",
                lambda out: [
                    *("ccop-pretrain", "inspect", "--images", self.images, "--proposals", self.proposals),
                    *("--out", out, "--count", 4, "--draws", 40, "--image-size", 64),
                ],
                contents,
            ),
            Writer(
                "run",
                lambda out: [
                    *("ccop-pretrain", "run", "--config", self.config, "--images", self.images),
                    *("--proposals", self.proposals, "--out", out),
                ],
                _network,
            ),
        ]

    def _hub(self) -> list[Writer]:
        def convert(name: str, to: str, suffix: str) -> Writer:
            return Writer(
                name,
                lambda out: ["ccop-hub", "convert", self.weights, "--to", to, "--out", out],
                _converted,
                suffix,
            )

        return [
            convert("convert", "torchvision", ".pth"),
            convert("convert to Detectron2", "detectron2", ".pkl"),
            convert("convert to timm", "timm", ""),
            Writer(
                "publish",
                lambda out: [
                    *("ccop-hub", "publish", self.run, "--repo", "lab/net", "--dry-run", "--out", out),
                    *("--licence", "mit", "--results", self.result),
                ],
                contents,
            ),
            Writer(
                "embed",
                lambda out: [
                    *("ccop-hub", "embed", self.images, "--weights", self.weights, "--out", out, "--image-size", 64),
                    *("--workers", 1, "--accelerator", "cpu"),
                ],
                lambda out: contents(out.parent),
                suffix=".npy",
            ),
            Writer(
                "compare",
                lambda out: ["ccop-eval", "compare", self.result, "--html", out],
                lambda out: out.read_bytes(),
                suffix=".html",
            ),
        ]

    def _evaluation(self) -> list[Writer]:
        def probe(name: str, data: Path, *flags: object, cached: bool = True) -> Writer:
            weights = self.weights if name == "segmentation" else self.run  # which needs strides that it can remove
            common = ["--weights", weights, "--data", data, "--workers", 1, "--accelerator", "cpu"]
            return Writer(
                name,
                lambda out: [
                    *("ccop-eval", name, *common, "--out", out, *flags),
                    *(("--cache", out / "features") if cached else ()),
                ],
                _result,
            )

        return [
            probe(
                *("linear", self.classes, "--epochs", 3, "--batch-size", 4, "--image-size", 32),
                cached=False,
            ),
            probe("knn", self.classes, "--image-size", 32),
            probe("voc-svm", self.voc, "--image-size", 32, "--costs", "[1]"),
            probe("regions", self.scenes, "--short-side", 96),
            probe(
                *("segmentation", self.scenes, "--scale_to", "[0,0]", "--crop-size", 64, "--stride", 48),
                *("--batch-size", 4, "--iterations", 6, "--save-every", 2, "--evaluate-every", 3),
                cached=False,
            ),
            Writer(
                "visualize",
                lambda out: [
                    *("ccop-eval", "visualize", self.images, "--weights", self.run, "--out", out),
                    *("--image-size", 96, "--limit", 3, "--accelerator", "cpu"),
                ],
                lambda out: contents(out, lambda path: path.suffix == ".png"),
            ),
            Writer(
                "detection",
                lambda out: [
                    *("ccop-eval", "detection", "--weights", "random", "--backbone", "resnet18"),
                    *("--data", self.scenes, "--out", out, "--protocol", "small-cpu", "--iterations", 4),
                    *("--batch-size", 2, "--workers", 1, "--save-every", 2, "--evaluate-every", 0),
                    *("--accelerator", "cpu"),
                ],
                _score,
                detection=True,
            ),
        ]


def _converted(out: Path) -> object:
    """The files, except that a configuration file names its weights file by its path."""
    if out.is_dir():
        return contents(out)
    config = out.with_suffix(".yaml")
    return [out.read_bytes(), config.read_text().replace(str(out), "OUT") if config.exists() else ""]


def _network(out: Path) -> object:
    """The exported tensors and the losses of every step; the file itself contains the time of its export."""
    tensors = read_checkpoint(out).tensors
    digests = {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in tensors.items()}
    with (out / "metrics.csv").open(newline="") as file:
        return [digests, [(row["step"], row["loss"]) for row in csv.DictReader(file)]]


def _score(out: Path) -> object:
    """The metrics; the losses in Detectron2's log are averages that begin anew when a run is resumed."""
    document = json.loads((out / "result.json").read_text())
    return [document["metrics"], document["per_class"], contents(out, lambda path: path.suffix == ".png")]


def _result(out: Path) -> object:
    document = json.loads((out / "result.json").read_text())
    values = [document.get(name) for name in ("metrics", "per_class", "curve", "intervals")]
    return [values, contents(out, lambda path: path.suffix == ".png")]
