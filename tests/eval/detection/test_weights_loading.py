import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ccop_eval.detection.coco_data import open_coco
from ccop_eval.detection.config import configure
from ccop_eval.detection.engine import load_engine
from ccop_eval.detection.weights_loading import load_weights
from torch import nn

from ccop_hub.architectures import ResNetFPN, build_resnet_fpn
from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import Weights

load_engine()

Draw = Callable[..., Path]


def _network(arch: str) -> ResNetFPN:
    """A network in which every tensor, including running statistics, differs from a new detector's."""
    network = build_resnet_fpn(arch, seed=3)
    generator = torch.Generator().manual_seed(4)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif name.endswith("num_batches_tracked"):
            value.fill_(17)
    return network.eval()


def _weights(arch: str, network: ResNetFPN | None = None) -> Weights:
    tensors = (network or _network(arch)).state_dict()
    return Weights("tested", arch, tensors, {}, "sha256:0", "tested", "canonical")


def _detector(draw: Draw, tmp_path: Path, arch: str, protocol: str = "small-cpu", **changes: Any) -> Any:
    from detectron2.modeling import build_model

    root = tmp_path / "shapes"
    data = open_coco(root if root.exists() else draw(root, train=1, val=1))
    cfg = configure(protocol, arch=arch, input_facts={}, data=data, device="cpu").cfg
    for name, value in changes.items():
        cfg.MODEL.RESNETS[name] = value
    return build_model(cfg).eval()


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_the_detector_computes_the_networks_pyramid_to_the_last_bit(draw: Draw, tmp_path: Path, arch: str) -> None:
    network, detector = _network(arch), _detector(draw, tmp_path, arch)
    load_weights(detector, _weights(arch, network))
    images = torch.randn(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = network(images), detector.backbone(images)
    assert list(found) == list(expected) == ["p2", "p3", "p4", "p5", "p6"]
    for level in expected:
        assert torch.equal(found[level], expected[level]), level


def test_every_tensor_is_accounted_for(draw: Draw, tmp_path: Path) -> None:
    weights, detector = _weights("resnet18"), _detector(draw, tmp_path, "resnet18")
    report = load_weights(detector, weights)
    assert report.loaded == "backbone+fpn"
    assert sorted(report.use.used) == sorted(weights.tensors)
    assert report.use.unused == []
    state = detector.state_dict()
    assert sorted(report.use.missing) == sorted(name for name in state if not name.startswith("backbone."))
    assert sum(count.tensors for count in report.counts) == len(state)
    assert sum(count.loaded_tensors for count in report.counts) == len(weights.tensors)
    assert sum(count.loaded_parameters for count in report.counts) == sum(v.numel() for v in weights.tensors.values())


def test_the_table_names_each_part(draw: Draw, tmp_path: Path) -> None:
    table = load_weights(_detector(draw, tmp_path, "resnet18"), _weights("resnet18"), "backbone").table()
    rows = {line.split()[0]: line for line in table.splitlines()}
    assert "6 of 6" in rows["stem"]
    assert "0 of 48" in rows["FPN"]
    assert "48 unused: fpn." in table


def test_the_backbone_alone(draw: Draw, tmp_path: Path) -> None:
    weights, detector = _weights("resnet18"), _detector(draw, tmp_path, "resnet18")
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    report = load_weights(detector, weights, "backbone")
    assert report.loaded == "backbone"
    assert report.use.unused == [name for name in weights.tensors if name.startswith("fpn.")]
    for name, value in detector.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("backbone.bottom_up.")), name


def test_weights_without_a_pyramid_load_the_backbone(draw: Draw, tmp_path: Path) -> None:
    weights = _weights("resnet18")
    bare = {name: value for name, value in weights.tensors.items() if name.startswith("backbone.")}
    weights = dataclasses.replace(weights, tensors=bare, unused=("head.weight",))
    report = load_weights(_detector(draw, tmp_path, "resnet18"), weights)
    assert report.loaded == "backbone"
    assert report.use.unused == ["head.weight"]


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_c4_computes_the_networks_stages_to_the_last_bit(draw: Draw, tmp_path: Path, arch: str) -> None:
    network, detector = _network(arch), _detector(draw, tmp_path, arch, "coco-c4-1x")
    report = load_weights(detector, _weights(arch, network))
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stages, res4 = network.stages(images), detector.backbone(images)["res4"]
        res5 = detector.roi_heads.res5[:-1](res4)
    assert torch.equal(res4, stages["res4"])
    assert torch.equal(res5, stages["res5"])
    assert report.loaded == "backbone"
    assert report.use.unused == [name for name in network.state_dict() if name.startswith("fpn.")]


def test_the_table_of_c4_has_res5_loaded_and_the_norm_behind_it_not(draw: Draw, tmp_path: Path) -> None:
    detector = _detector(draw, tmp_path, "resnet18", "coco-c4-1x")
    report = load_weights(detector, _weights("resnet18"))
    counts = {count.part: (count.loaded_tensors, count.tensors) for count in report.counts}
    assert counts["res5"] == (30, 30)
    assert counts["norm after res5"] == (0, 5)
    assert sum(count.tensors for count in report.counts) == len(detector.state_dict())
    row = next(line for line in report.table().splitlines() if line.startswith("norm after res5"))
    assert row.endswith("starts at random")


@pytest.mark.parametrize("protocol", ["small-cpu", "coco-c4-1x"])
def test_a_stride_in_another_place_is_an_error(draw: Draw, tmp_path: Path, protocol: str) -> None:
    detector = _detector(draw, tmp_path, "resnet50", protocol, STRIDE_IN_1X1=True)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(UserError, match=r"res3\.0\.conv1 has stride \(2, 2\), and the checkpoint's network \(1, 1\)"):
        load_weights(detector, _weights("resnet50"))
    _assert_unchanged(detector, before)


def test_a_dilated_stage_is_an_error(draw: Draw, tmp_path: Path) -> None:
    detector = _detector(draw, tmp_path, "resnet18")
    detector.backbone.bottom_up.res5[0].conv2.dilation = (2, 2)
    with pytest.raises(UserError, match=r"res5\.0\.conv2 has dilation \(2, 2\)"):
        load_weights(detector, _weights("resnet18"))


@pytest.mark.parametrize("norm", ["FrozenBN", "GN", ""])
def test_another_norm_is_an_error(draw: Draw, tmp_path: Path, norm: str) -> None:
    detector = _detector(draw, tmp_path, "resnet18", NORM=norm)
    with pytest.raises(UserError, match="tested does not fit the detector"):
        load_weights(detector, _weights("resnet18"))


def test_a_norm_with_another_epsilon_is_an_error(draw: Draw, tmp_path: Path) -> None:
    detector = _detector(draw, tmp_path, "resnet18")
    detector.backbone.bottom_up.stem.conv1.norm.eps = 1e-3
    with pytest.raises(UserError, match=r"stem\.conv1\.norm has eps 0\.001"):
        load_weights(detector, _weights("resnet18"))


def test_another_stem_is_an_error(draw: Draw, tmp_path: Path) -> None:
    detector = _detector(draw, tmp_path, "resnet18", STEM_OUT_CHANNELS=32)
    with pytest.raises(UserError, match="tested does not fit the detector's resnet18"):
        load_weights(detector, _weights("resnet18"))


def test_untrained_weights_count_as_nothing_loaded(draw: Draw, tmp_path: Path) -> None:
    weights = dataclasses.replace(_weights("resnet18"), source="random")
    assert load_weights(_detector(draw, tmp_path, "resnet18"), weights).loaded == "nothing"


def test_a_missing_backbone_tensor_is_an_error(draw: Draw, tmp_path: Path) -> None:
    weights = _weights("resnet18")
    short = {name: value for name, value in weights.tensors.items() if name != "backbone.layer2.0.conv1.weight"}
    with pytest.raises(UserError, match=r"missing: backbone\.layer2\.0\.conv1\.weight"):
        load_weights(_detector(draw, tmp_path, "resnet18"), dataclasses.replace(weights, tensors=short))


@pytest.mark.parametrize(
    ("built", "given"), [("resnet18", "resnet34"), ("resnet34", "resnet18"), ("resnet18", "resnet50")]
)
def test_weights_of_another_architecture_are_an_error(draw: Draw, tmp_path: Path, built: str, given: str) -> None:
    detector = _detector(draw, tmp_path, built)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(UserError, match="tested does not fit the detector"):
        load_weights(detector, _weights(given))
    _assert_unchanged(detector, before)


def test_a_tensor_of_another_shape_is_an_error_and_nothing_is_loaded(draw: Draw, tmp_path: Path) -> None:
    weights, detector = _weights("resnet18"), _detector(draw, tmp_path, "resnet18")
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    wide = {**weights.tensors, "backbone.layer4.1.conv2.weight": torch.zeros(512, 512, 1, 1)}
    with pytest.raises(UserError, match=r"shapes differ in 1 tensor \(backbone\.bottom_up\.res5\.1\.conv2\.weight"):
        load_weights(detector, dataclasses.replace(weights, tensors=wide))
    _assert_unchanged(detector, before)


def _assert_unchanged(detector: nn.Module, before: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_a_timm_backbone_and_its_pyramid_are_loaded_and_computed_alike(draw: Draw, tmp_path: Path) -> None:
    network = _network("test_convnext")
    model = _detector(draw, tmp_path, "test_convnext").eval()
    report = load_weights(model, _weights("test_convnext", network))
    assert report.loaded == "backbone+fpn"
    assert {row.part for row in report.counts if row.loaded_tensors == row.tensors} == {"backbone", "FPN"}
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = network(images), model.backbone(images)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-4)
