"""Code in the documentation of other libraries works as described."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ccop_hub.cli import main
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.formats.conversion import convert
from ccop_hub.sources.resolve import resolve

from .conftest import distinct_network
from .hub_server import HubServer

PAGES = Path(__file__).parents[2] / "docs" / "libraries"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def resnet50() -> Weights:
    return resolve(distinct_network("resnet50").state_dict())


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in code:
        exec(compile(block, "page", "exec"), names)
    return names


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_torchvision(resnet50: Weights) -> None:
    convert(resnet50, "torchvision", Path("weights.pth"))
    backbone = resolve({name: value for name, value in resnet50.tensors.items() if name.startswith("backbone.")})
    convert(backbone, "torchvision", Path("backbone.pth"))
    with_pyramid, alone = blocks("torchvision.md")
    assert same(run(alone)["model"].state_dict(), resnet50.part("backbone"))
    found = run(with_pyramid)["backbone"].eval()
    assert torch.equal(found.body.state_dict()["conv1.weight"], resnet50.part("backbone")["conv1.weight"])
    assert same(found.fpn.state_dict(), resnet50.part("fpn"))


def test_timm(resnet50: Weights) -> None:
    convert(resnet50, "timm", Path("weights"))
    found = run(*blocks("timm.md"))
    assert same(found["model"].state_dict(), resnet50.part("backbone"))
    assert torch.equal(found["features"].state_dict()["conv1.weight"], resnet50.part("backbone")["conv1.weight"])
    assert found["classifier"].num_classes == 10


STOCK = """
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS: {OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5]}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, POOLER_RESOLUTION: 7}
"""
"""Model settings of Detectron2's mask_rcnn_R_50_FPN_1x.yaml, without the mask head."""


def test_detectron2(resnet50: Weights) -> None:
    pytest.importorskip("detectron2")
    from ccop_eval.detection.engine import load_engine

    load_engine()
    Path("mask_rcnn_R_50_FPN_1x.yaml").write_text(STOCK)
    convert(resnet50, "detectron2", Path("weights.pkl"))
    found = run(*blocks("detectron2.md"))["model"].state_dict()
    name = "backbone.bottom_up.res3.0.conv2"
    body = resnet50.part("backbone")
    assert torch.equal(found[f"{name}.weight"], body["layer2.0.conv2.weight"])
    assert torch.equal(found[f"{name}.norm.running_var"], body["layer2.0.bn2.running_var"])
    assert torch.equal(found["backbone.fpn_lateral2.norm.weight"], resnet50.part("fpn")["inner_blocks.0.1.weight"])


def test_hugging_face(
    run_18: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(run_18), "--repo", "ORG/NAME"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next: ccop-hub info hf-hub:ORG/NAME"
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    expected = resolve(str(run_18))
    found = run(*blocks("huggingface.md"))
    assert same(found["network"].state_dict(), dict(expected.tensors))
    assert same(found["state"], expected.part("backbone"))


@pytest.fixture
def run_18(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("run")
    return folder


MMDETECTION = {
    "backbone.conv1.weight": "backbone.conv1.weight",
    "backbone.bn1.running_mean": "backbone.bn1.running_mean",
    "backbone.layer1.0.downsample.0.weight": "backbone.layer1.0.downsample.0.weight",
    "backbone.layer4.2.bn3.num_batches_tracked": "backbone.layer4.2.bn3.num_batches_tracked",
    "fpn.inner_blocks.0.0.weight": "neck.lateral_convs.0.conv.weight",
    "fpn.inner_blocks.3.1.bias": "neck.lateral_convs.3.bn.bias",
    "fpn.layer_blocks.0.0.weight": "neck.fpn_convs.0.conv.weight",
    "fpn.layer_blocks.3.1.running_var": "neck.fpn_convs.3.bn.running_var",
}
"""Tensor names of mmdetection 3.3's `ResNet` and `FPN` with `norm_cfg` (models/backbones/resnet.py, necks/fpn.py)."""


def test_mmdetection(resnet50: Weights) -> None:
    convert(resnet50, "mmdetection", Path("weights.pth"))
    (settings,) = blocks("mmdetection.md")
    found = torch.load(run(settings)["load_from"], weights_only=True)["state_dict"]
    assert len(found) == len(resnet50.tensors)
    for own, theirs in MMDETECTION.items():
        assert torch.equal(found[theirs], resnet50.tensors[own])
    preprocessing = run(settings)["model"]["data_preprocessor"]
    assert (preprocessing["mean"], preprocessing["std"]) == tuple(
        resnet50.facts["input"][key] for key in ("mean", "std")
    )
