"""Inputs of the commands, made once: synthetic images, their proposals, a tiny run and class folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..small_run import SMALL_RUN
from .command import contents, run

RUN_SETTINGS = {
    **SMALL_RUN,
    "backbone": "test_resnet",
    "steps": 12,
    "save_every": 3,
}


@dataclass(frozen=True)
class Writer:
    """A command that writes, and how to check its output.

    Attributes:
        name: its name in the table.
        command: its command line for an output path.
        essence: the reproducible part of its output: name -> digest or value.
        suffix: the output's suffix, if it is a file rather than a folder.
    """

    name: str
    command: Callable[[Path], list[object]]
    essence: Callable[[Path], object]
    suffix: str = ""


class Material:
    """The inputs of all commands.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scenes, self.proposals = root / "scenes", root / "proposals"
        self.images = self.scenes / "train2017"
        self.run, self.classes, self.config = root / "run", root / "classes", root / "run.yaml"
        self.config.write_text(yaml.safe_dump(RUN_SETTINGS))
        self.writers = {writer.name: writer for writer in self._writers()}

    def make(self, *names: str) -> None:
        """Make the inputs: run the scenes, proposals and run commands, then draw the class folders."""
        places = {"scenes": self.scenes, "proposals": self.proposals, "run": self.run}
        for name in names:
            done = run(self.writers[name].command(places[name]))
            if done.code:
                raise RuntimeError(f"{name} failed on sound inputs: {done.error}")
        for number, image in enumerate(sorted(self.images.glob("*"))):
            for split in ("train", "val"):
                folder = self.classes / split / ("even", "odd")[number % 2]
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(image, folder)

    def _writers(self) -> list[Writer]:
        small = ["--workers", 1]
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
                "run",
                lambda out: [
                    *("ccop-pretrain", "run", "--config", self.config, "--images", self.images),
                    *("--proposals", self.proposals, "--out", out),
                ],
                lambda out: contents(out, lambda path: path.suffix == ".safetensors"),
            ),
            Writer(
                "linear",
                lambda out: [
                    *("ccop-eval", "linear", "--weights", self.run, "--data", self.classes, "--out", out),
                    *("--epochs", 3, "--batch-size", 4, "--image-size", 32, "--workers", 0, "--accelerator", "cpu"),
                ],
                _result,
            ),
            Writer(
                "convert",
                lambda out: ["ccop-hub", "convert", self.run, "--to", "torchvision", "--out", out],
                lambda out: out.read_bytes(),
                suffix=".pth",
            ),
        ]


def _result(out: Path) -> object:
    document = json.loads((out / "result.json").read_text())
    return [document["metrics"], document["curve"]]
