"""A password and a token in an address reach neither a file, nor the terminal, nor a log, whatever the command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ccop_eval.cli
import ccop_pretrain.cli
import numpy as np
import pytest
from PIL import Image

import ccop_hub.cli
from ccop_hub.architectures import build_backbone
from ccop_hub.formats.checkpoint import save_checkpoint
from ccop_hub.normalization import INPUT_FACTS

from ..ccop_hub.sources.test_download import FileServer, secret_url
from ..small_run import SMALL_RUN

ARCH = "test_resnet"
SECRETS = ("SECRET", "U0VDUkVU", "bWU6")
"""The password and token; base64 of the password and of the user name, as in the `Authorization` header."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    server = FileServer()
    tensors = {f"backbone.{name}": value for name, value in build_backbone(ARCH).state_dict().items()}
    facts = {"arch": ARCH, "input": INPUT_FACTS, "settings": {"lr": 1}}
    server.content = save_checkpoint(tmp_path_factory.mktemp("weights"), tensors, facts).read_bytes()
    yield server
    server.close()


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of each of two classes, in both splits."""
    folder, random = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for number in range(6):
                pixels = random.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boxes, masks and labels of six images in COCO's layout."""
    folder = tmp_path_factory.mktemp("scenes") / "out"
    assert ccop_pretrain.cli.main(["scenes", "--out", str(folder), "--images=6", "--size=96", "--workers=1"]) == 0
    return folder


@pytest.fixture(scope="module")
def voc(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images as `classes`, in VOC's layout."""
    folder = tmp_path_factory.mktemp("voc") / "VOC2007"
    for part in ("ImageSets/Main", "JPEGImages"):
        (folder / part).mkdir(parents=True)
    for split, name in (("train", "trainval"), ("val", "test")):
        images = sorted((classes / split).rglob("*.png"))
        for number, image in enumerate(images):
            Image.open(image).save(folder / "JPEGImages" / f"{name}{number}.jpg")
        for kind in ("a", "b"):
            rows = [f"{name}{n} {1 if image.parent.name == kind else -1:2d}" for n, image in enumerate(images)]
            (folder / "ImageSets" / "Main" / f"{kind}_{name}.txt").write_text("\n".join(rows) + "\n")
    return folder


CPU = ["--accelerator", "cpu", "--workers", "0"]
SMALL = [word for name, value in SMALL_RUN.items() for word in (f"--{name.replace('_', '-')}", str(value))]

COMMANDS = {
    "info": (ccop_hub.cli.main, ["info", "URL"]),
    "verify": (ccop_hub.cli.main, ["verify", "URL"]),
    "convert": (ccop_hub.cli.main, ["convert", "URL", "--to", "safetensors", "--out", "OUT"]),
    "run": (
        ccop_pretrain.cli.main,
        [
            *("run", "--images", "DATA/train", "--objective", "mocov2", "--backbone", ARCH, "--init", "URL"),
            *("--steps", "2", "--tensorboard", "--out", "OUT", *SMALL),
        ],
    ),
    "linear": (
        ccop_eval.cli.main,
        [
            *("linear", "--weights", "URL", "--against", "URL", "--data", "DATA", "--out", "OUT", "--epochs", "1"),
            *("--batch-size", "4", "--image-size", "32", *CPU),
        ],
    ),
    "knn": (
        ccop_eval.cli.main,
        ["knn", "--weights", "URL", "--data", "DATA", "--out", "OUT", "--image-size", "32", *CPU],
    ),
    "voc-svm": (
        ccop_eval.cli.main,
        ["voc-svm", "--weights", "URL", "--data", "VOC", "--out", "OUT", "--image-size=32", "--costs", "[1]", *CPU],
    ),
    "regions": (
        ccop_eval.cli.main,
        ["regions", "--weights", "URL", "--data", "SCENES", "--out", "OUT", "--short-side", "64", *CPU],
    ),
    "segmentation": (
        ccop_eval.cli.main,
        [
            *("segmentation", "--weights", "URL", "--data", "SCENES", "--out", "OUT"),
            *("--scale-to", "[0,0]", "--crop-size", "32", "--stride", "0", "--batch-size", "2", "--iterations", "2"),
            *CPU,
        ],
    ),
    "detection": (
        ccop_eval.cli.main,
        [
            *("detection", "--weights", "URL", "--data", "SCENES", "--out", "OUT", "--protocol", "small-cpu"),
            *("--iterations", "1", "--batch-size", "1", "--evaluate-every", "0", *CPU),
        ],
    ),
    "embed": (
        ccop_hub.cli.main,
        ["embed", "DATA/val/a", "--weights", "URL", "--out", "OUT/features.npy", "--image-size", "32", *CPU],
    ),
    "visualize": (
        ccop_eval.cli.main,
        ["visualize", "DATA/val/a", "--weights", "URL", "--out", "OUT", "--accelerator", "cpu"],
    ),
}


@pytest.mark.parametrize("fault", [None, 403, 302])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_secret_of_an_address_leaves_the_command(
    name: str,
    fault: int | None,
    server: FileServer,
    classes: Path,
    scenes: Path,
    voc: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CCOP_CACHE", str(tmp_path / "cache"))
    main, words = COMMANDS[name]
    url = f"{secret_url(server)}#SECRET"
    server.plan = [fault] * 4 if fault else []
    # The server answers with what it was sent.
    server.headers = {"Location": f"http://example.invalid/me:SECRET@{url}", "X-Token": "SECRET"} if fault else {}
    places = {"URL": url, "OUT": str(tmp_path / "out"), "DATA": str(classes), "SCENES": str(scenes), "VOC": str(voc)}
    argv = []
    for word in words:
        first, slash, rest = word.partition("/")
        argv.append(places[first] + slash + rest if first in places else word)
    code = main(argv)
    told = capfd.readouterr()
    assert code == (2 if fault else 0), told.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    texts = {"stdout": told.out, "stderr": told.err, "log": caplog.text, "names": "\n".join(map(str, files))}
    texts |= {str(path): path.read_bytes().decode("latin-1") for path in files}
    leaks = [(place, secret) for place, text in texts.items() for secret in SECRETS if secret in text]
    assert leaks == []
    if not fault:
        assert any("127.0.0.1" in text for text in texts.values()) or name in ("verify", "convert", "visualize")
