from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ccop_hub.cli import main
from ccop_hub.description import describe
from ccop_hub.formats.outline import outline_of
from ccop_hub.sources.resolve import resolve

from . import foreign_layouts as layouts


def test_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # must have no effect: machine-readable output is never wrapped
    assert main(["list"]) == 0
    told = capsys.readouterr().out
    for words in (
        "resnet50.ccop_coco_800ep *",
        "resnet50.mocov2_in1k_800ep",
        "resnet50.mocov2_in1k_200ep",
        "md5:a04e12f8",
        "md5:59fd9945",
        "none published",
        "CC-BY-NC-4.0",
        "arXiv:2111.13651",
        "coco-fpn-4conv1fc-1x",
        "bbox/AP 40.4, segm/AP 36.4",
        "gdrive:1M8YjO1zD0xFYSPHitlhv70YlW0N8cup6",
        "https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar",
        "123.675, 116.28, 103.53",
        "58.395, 57.12, 57.375",
    ):
        assert words in told
    assert told.splitlines()[-1] == "next: ccop-hub info resnet10t.ccop_synthetic_21ep"
    figures = told[told.index("Published results") :].rpartition("next: ")[0]
    assert "ccop_coco" not in figures


def test_info(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["info", str(run)]) == 0
    told = capsys.readouterr().out
    weights = resolve(run)
    for words in (
        "resnet18",
        weights.digest,
        "canonical",
        "backbone, fpn",
        "mean [123.675, 116.28, 103.53]",
        "images 482, name scenes",
        "fpn lateral",
        f'ccop_hub.load("{run}", pyramid=True)',
    ):
        assert words in told
    assert told.splitlines()[-1] == f"next: ccop-hub embed IMAGES --weights {run} --out features.npy"
    assert main(["info", "random"]) == 2
    assert capsys.readouterr().err.startswith("ccop-hub: random weights need an architecture")


def test_info_names_what_is_not_used(
    tensors: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    torch.save(layouts.moco(layouts.part(tensors, "backbone"), {}), tmp_path / "moco.pth.tar")
    assert main(["info", str(tmp_path / "moco.pth.tar")]) == 0
    told = capsys.readouterr().out
    assert "moco" in told
    assert "module.encoder_q.fc.0.weight" in told
    assert "ccop_hub.load(" in told


def test_description() -> None:
    found = describe(outline_of(resolve("random", "resnet50")))
    backbone = sum(group.parameters for group in found.groups if not group.name.startswith("fpn"))
    # torchvision's ResNet-50 has 25,557,032 parameters, 2,049,000 of them in the classifier, and 4.09 GFLOPs.
    assert backbone == 25_557_032 - 2_049_000
    assert found.flops["backbone"] / 1e9 == pytest.approx(4.09, abs=0.06)
    assert found.flops["backbone + fpn"] > 1.5 * found.flops["backbone"]
    assert found.parameters == backbone + sum(
        group.parameters for group in found.groups if group.name.startswith("fpn")
    )
    assert sum(group.tensors for group in found.groups) == 366
    assert [group.name for group in found.groups][:5] == ["stem", "res2", "res3", "res4", "res5"]


HELP = """
import sys
from ccop_hub.cli import main
try:
    main(["publish", "--help"])
finally:
    assert "torch" not in sys.modules
"""


def test_help_is_answered_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in ("--repo", "--private", "--dry-run", "ORG/NAME"):
        assert words in done.stdout


def test_program_prints_one_line_and_no_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ccop_hub", "verify", "nowhere.pth"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("ccop-hub: no weights at 'nowhere.pth'")
