from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from ccop_hub.architectures import HUB_ARCHITECTURES, ResNetFPN, build_resnet_fpn, stage_channels
from ccop_hub.errors import UserError
from ccop_hub.formats.names import (
    SCHEMES,
    KeyMismatchError,
    from_canonical,
    layout_of,
    to_canonical,
)
from ccop_hub.plain_resnets import LAYOUTS, fpn_names

WITHOUT_PYRAMID = ("timm", "detectron2-c4")


def parts_of(scheme: str) -> tuple[str, ...]:
    return ("backbone",) if scheme in WITHOUT_PYRAMID else ("backbone", "fpn")


@pytest.fixture(scope="module")
def network() -> ResNetFPN:
    """A ResNet-18 with FPN whose BN statistics and scales all differ from their defaults."""
    network = build_resnet_fpn("resnet18", seed=5).train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
        network(torch.rand(2, 3, 64, 64))
    return network.eval()


@pytest.mark.parametrize("arch", [*HUB_ARCHITECTURES, "resnet152"])
def test_the_lists_are_those_of_the_networks(arch: str) -> None:
    with torch.device("meta"):
        network = ResNetFPN(arch)
    assert LAYOUTS[arch].backbone_names() == list(network.backbone.state_dict())
    assert fpn_names() == list(network.fpn.state_dict())
    assert layout_of(network.backbone.state_dict()) == arch


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
@pytest.mark.parametrize(("first", "second"), list(itertools.product(SCHEMES, SCHEMES)))
def test_round_trip_of_every_pair(arch: str, first: str, second: str) -> None:
    parts = parts_of(first) if len(parts_of(first)) == 1 else parts_of(second)
    with torch.device("meta"):
        canonical = to_canonical(ResNetFPN(arch).state_dict(), "canonical")
    one = from_canonical(canonical, first, parts)
    two = from_canonical(to_canonical(one, first), second, parts)
    back = from_canonical(to_canonical(two, second), first, parts)
    assert list(back) == list(one)
    assert all(back[name] is one[name] for name in one)
    assert len(one) == len(two) == sum(name.split(".")[0] in parts for name in canonical)


def test_torchvision_names_are_torchvisions(network: ResNetFPN) -> None:
    theirs = torchvision.models.resnet18()
    theirs.fc = nn.Identity()
    theirs.load_state_dict(from_canonical(network.state_dict(), "torchvision", ("backbone",)))
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(theirs.eval()(images), network.backbone(images))


def test_torchvision_pyramid_names_are_torchvisions(network: ResNetFPN) -> None:
    theirs = BackboneWithFPN(
        torchvision.models.resnet18(),
        {f"layer{i}": str(i - 1) for i in range(1, 5)},
        stage_channels(network.backbone),
        256,
        norm_layer=nn.BatchNorm2d,
    )
    theirs.load_state_dict(from_canonical(network.state_dict(), "torchvision"))
    images = torch.rand(1, 3, 64, 64)
    ours, features = network(images), theirs.eval()(images)
    assert len(ours) == len(features) == 5
    for mine, found in zip(ours.values(), features.values(), strict=True):
        assert torch.equal(mine, found)


def test_timm_names_are_timms(network: ResNetFPN) -> None:
    theirs = timm.create_model("resnet18", num_classes=0)
    theirs.load_state_dict(from_canonical(network.state_dict(), "timm", ("backbone",)))
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(theirs.eval()(images), network.backbone(images))


def detectron2_features(state: Mapping[str, Tensor], images: Tensor) -> list[Tensor]:
    """Stages and p2..p5 of a ResNet-18, computed from tensors under Detectron2's names."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        x = nn.functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        norm = [state[f"{name}.norm.{tensor}"] for tensor in ("running_mean", "running_var", "weight", "bias")]
        return nn.functional.batch_norm(x, *norm)

    body = "backbone.bottom_up."
    x = nn.functional.max_pool2d(conv(images, f"{body}stem.conv1", 2).relu(), 3, 2, 1)
    stages = []
    for stage in range(2, 6):
        for block in range(2):
            path, stride = f"{body}res{stage}.{block}", 2 if stage > 2 and block == 0 else 1
            shortcut = conv(x, f"{path}.shortcut", stride) if f"{path}.shortcut.weight" in state else x
            x = (conv(conv(x, f"{path}.conv1", stride).relu(), f"{path}.conv2") + shortcut).relu()
        stages.append(x)
    levels: list[Tensor] = []
    top: Tensor | None = None
    for stage in range(5, 1, -1):
        lateral = conv(stages[stage - 2], f"backbone.fpn_lateral{stage}")
        top = lateral if top is None else lateral + nn.functional.interpolate(top, scale_factor=2, mode="nearest")
        levels.insert(0, conv(top, f"backbone.fpn_output{stage}"))
    return stages + levels


def test_features_by_detectron2_names_are_the_networks(network: ResNetFPN) -> None:
    images = torch.rand(1, 3, 64, 64)
    stages = network.stages(images)
    expected = [*stages.values(), *list(network.pyramid(stages).values())[:4]]
    found = detectron2_features(from_canonical(network.state_dict(), "detectron2"), images)
    assert [f"p{i}" for i in range(2, 6)] == list(network.pyramid(stages))[:4]
    assert list(stages) == [f"res{i}" for i in range(2, 6)]
    for mine, theirs in zip(expected, found, strict=True):
        # The summation order differs: float32 rounds about 60 times, each time by 2^-24 of the largest value.
        torch.testing.assert_close(theirs, mine, rtol=0, atol=60 * 2**-24 * 10 * float(mine.detach().abs().max()))


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ("detectron2", "backbone.bottom_up.stem.conv1.norm.weight"),
        ("detectron2", "backbone.bottom_up.res3.0.shortcut.norm.running_var"),
        ("detectron2", "backbone.bottom_up.res5.1.conv2.weight"),
        ("detectron2", "backbone.fpn_lateral2.norm.bias"),
        ("detectron2", "backbone.fpn_output5.weight"),
        ("detectron2-c4", "backbone.res4.1.conv1.weight"),
        ("detectron2-c4", "roi_heads.res5.0.shortcut.weight"),
        ("torchvision", "body.layer1.0.conv1.weight"),
        ("torchvision", "fpn.layer_blocks.3.1.running_mean"),
        ("mmdetection", "backbone.layer4.1.bn2.weight"),
        ("mmdetection", "neck.lateral_convs.0.conv.weight"),
        ("mmdetection", "neck.fpn_convs.3.bn.running_var"),
        ("timm", "layer2.0.downsample.1.bias"),
    ],
)
def test_known_names(network: ResNetFPN, scheme: str, name: str) -> None:
    assert name in from_canonical(network.state_dict(), scheme, parts_of(scheme))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_unknown_and_missing_name_is_listed(network: ResNetFPN, scheme: str) -> None:
    state = from_canonical(network.state_dict(), scheme, parts_of(scheme))
    lost = [name for name in state if "conv2.weight" in name]
    for name in lost:
        del state[name]
    state["momentum"] = state["layer9.weight"] = torch.zeros(1)
    with pytest.raises(KeyMismatchError) as raised:
        to_canonical(state, scheme)
    assert raised.value.unknown == ("momentum", "layer9.weight")
    assert list(raised.value.missing) == lost
    for name in ("momentum", "layer9.weight", *lost):
        assert name in str(raised.value)
    assert "resnet18" in str(raised.value)


def test_canonical_input_is_checked_too(network: ResNetFPN) -> None:
    state = network.state_dict()
    del state["fpn.inner_blocks.1.0.weight"]
    with pytest.raises(KeyMismatchError, match=r"missing: fpn\.inner_blocks\.1\.0\.weight"):
        from_canonical(state, "detectron2", ("backbone",))


@pytest.mark.parametrize("scheme", WITHOUT_PYRAMID)
def test_no_names_for_the_pyramid(network: ResNetFPN, scheme: str) -> None:
    with pytest.raises(UserError, match=r"feature pyramid.*'backbone'"):
        from_canonical(network.state_dict(), scheme)


def test_parts(network: ResNetFPN) -> None:
    pyramid = from_canonical(network.state_dict(), "detectron2", ("fpn",))
    assert len(pyramid) == 48
    assert all(name.startswith("backbone.fpn_") for name in pyramid)
    assert set(to_canonical(pyramid, "detectron2")) == {f"fpn.{name}" for name in fpn_names()}
    with pytest.raises(UserError, match="none of the parts heads"):
        from_canonical(network.state_dict(), "canonical", ("heads",))


def test_no_such_scheme(network: ResNetFPN) -> None:
    with pytest.raises(UserError, match=r"'caffe'.*canonical, torchvision"):
        to_canonical(network.state_dict(), "caffe")


def test_other_timm_resnets_keep_canonical_and_timm_names() -> None:
    with torch.device("meta"):
        state = ResNetFPN("resnet18d").state_dict()
    assert "backbone.conv1.6.weight" in state
    timms = from_canonical(state, "timm", ("backbone",), arch="resnet18d")
    assert set(to_canonical(timms, "timm", arch="resnet18d")) == {name for name in state if name.startswith("backbone")}
    with pytest.raises(UserError, match="no names for the tensors of"):
        to_canonical(timms, "detectron2", arch="resnet18d")
    with pytest.raises(UserError, match="no names for the tensors of"):
        from_canonical(state, "detectron2", arch="resnet18d")
