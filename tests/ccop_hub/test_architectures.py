from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ccop_hub.architectures import (
    FPN_CHANNELS,
    PYRAMID_STRIDES,
    ResNetFPN,
    build_backbone,
    build_resnet_fpn,
    stage_channels,
)
from ccop_hub.errors import UserError
from ccop_hub.loading import load_backbone, load_pyramid

SIDE = 64


@pytest.fixture(scope="module", params=["backbone", "pyramid"])
def network(request: pytest.FixtureRequest, tensors: dict[str, Tensor]) -> nn.Module:
    return load_backbone("resnet18", tensors) if request.param == "backbone" else load_pyramid("resnet18", tensors)


def images() -> Tensor:
    return torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def as_dict(output: Any) -> dict[str, Tensor]:
    return output if isinstance(output, dict) else {"pooled": output}


def assert_same(found: Any, expected: Any, atol: float) -> None:
    found, expected = as_dict(found), as_dict(expected)
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=atol)


@torch.no_grad()
def test_script(network: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(network)
    assert_same(scripted(images()), network(images()), 1e-4)


@torch.no_grad()
def test_export(network: nn.Module) -> None:
    exported = torch.export.export(network, (images(),)).module()
    assert_same(exported(images()), network(images()), 1e-4)


@torch.no_grad()
def test_compile(network: nn.Module) -> None:
    """Tests tracing without graph breaks and AOTAutograd, but not the backend's code generation."""
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    assert_same(compiled(images()), network(images()), 1e-4)


@torch.no_grad()
def test_onnx(network: nn.Module, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    expected = as_dict(network(images()))
    file = str(tmp_path / "network.onnx")
    names = list(expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (images(),), file, input_names=["images"], output_names=names, dynamo=True)
    session = onnxruntime.InferenceSession(file)
    assert [output.name for output in session.get_outputs()] == names
    found = session.run(None, {"images": images().numpy()})
    assert_same({name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}, expected, 1e-4)


@torch.no_grad()
def test_channels_last(network: nn.Module) -> None:
    expected = network(images())
    network.to(memory_format=torch.channels_last)
    try:
        found = network(images().to(memory_format=torch.channels_last))
    finally:
        network.to(memory_format=torch.contiguous_format)
    assert_same(found, expected, 1e-4)
    if isinstance(found, dict):
        assert all(level.is_contiguous(memory_format=torch.channels_last) for level in list(found.values())[:4])


@torch.no_grad()
@pytest.mark.parametrize("way", ["autocast", "weights"])
def test_bfloat16(network: nn.Module, way: str) -> None:
    expected = as_dict(network(images()))
    if way == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = as_dict(network(images()))
    else:
        network.to(torch.bfloat16)
        try:
            found = as_dict(network(images().bfloat16()))
        finally:
            network.float()
            network.load_state_dict(_fresh(network))
    for name, value in expected.items():
        assert found[name].isfinite().all()
        scale = value.square().mean().sqrt()
        # bf16 has 8 significant bits: errors of a few percent after 18 layers.
        assert (found[name].float() - value).square().mean().sqrt() < 0.1 * scale


def _fresh(network: nn.Module) -> dict[str, Tensor]:
    from .conftest import distinct_network

    whole = distinct_network("resnet18")
    return (whole if isinstance(network, ResNetFPN) else whole.backbone).state_dict()


@pytest.mark.parametrize(
    ("arch", "channels"),
    [("resnet18", [64, 128, 256, 512]), ("resnet50", [256, 512, 1024, 2048]), ("test_resnet", [32, 48, 192, 96])],
)
def test_stage_channels(arch: str, channels: list[int]) -> None:
    backbone = build_backbone(arch)
    assert stage_channels(backbone) == channels
    with torch.no_grad():
        stages = build_resnet_fpn(arch, 0).eval().stages(torch.zeros(1, 3, 64, 64))
    assert [tuple(stage.shape[1:]) for stage in stages.values()] == [
        (count, 64 // stride, 64 // stride) for count, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def statistics(tensor: Tensor) -> float:
    return float(tensor.detach().std() if tensor.numel() > 1 else 0)


def test_initial_weights() -> None:
    """As in Detectron2: backbone Kaiming normal (fan out), all BN scales 1, pyramid Kaiming uniform (a = 1)."""
    network = build_resnet_fpn("resnet50", seed=3)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight)), name
            assert torch.equal(module.bias, torch.zeros_like(module.bias)), name
        elif isinstance(module, nn.Conv2d):
            assert module.bias is None
            out, into, height, width = module.weight.shape
            if name.startswith("backbone"):
                assert statistics(module.weight) == pytest.approx((2 / (out * height * width)) ** 0.5, rel=0.05), name
            else:
                bound = (3 / (into * height * width)) ** 0.5
                assert float(module.weight.detach().abs().max()) <= bound
                assert statistics(module.weight) == pytest.approx(bound / 3**0.5, rel=0.02), name


def test_stride_stands_on_the_3x3_convolution() -> None:
    block = build_backbone("resnet50").layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


def test_all_tensors_are_trained() -> None:
    network = ResNetFPN("resnet18")
    assert all(parameter.requires_grad for parameter in network.parameters())
    network(torch.rand(2, 3, 64, 64))["p6"].sum().backward()
    assert network.backbone.conv1.weight.grad is not None


def test_strides_and_channels_are_stated() -> None:
    network = ResNetFPN("resnet18")
    assert network.strides == PYRAMID_STRIDES == {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
    assert network.channels == dict.fromkeys(PYRAMID_STRIDES, FPN_CHANNELS)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: build_backbone("resnet19"), "no network named 'resnet19'"),
        (lambda: build_backbone("vit_tiny_patch16_224"), "a ResNet, RegNet, ConvNeXt"),
    ],
)
def test_other_networks_are_refused(build: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError, match=f"{said}.*resnet18"):
        build()
