"""Backbones other than ResNets: build, export, load, convert, verify, describe."""

from pathlib import Path

import pytest
import timm
import torch
from timm.models.resnet import ResNet
from torch import nn

import ccop_hub
from ccop_hub.architectures import BackboneFPN, build_backbone, build_network, build_resnet_fpn, stage_channels
from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import save_checkpoint

NETWORKS = ["test_convnext", "test_efficientnet", "test_byobnet"]
FAMILIES = ["regnety_002", "mobilenetv3_small_050", "seresnet18"]


def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def exported(arch: str, folder: Path) -> Path:
    """A checkpoint whose norms and scales differ from their initial values."""
    network = build_resnet_fpn(arch, seed=3).train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        network(images())
    save_checkpoint(folder, network.state_dict(), {"arch": arch})
    return folder


@pytest.mark.parametrize("arch", [*NETWORKS, *FAMILIES])
@torch.no_grad()
def test_a_backbone_has_four_stages_and_a_pyramid(arch: str) -> None:
    network = build_network(arch).eval()
    stages = network.stages(images())
    sizes = {name: tuple(value.shape[2:]) for name, value in stages.items()}
    assert sizes == {"res2": (16, 24), "res3": (8, 12), "res4": (4, 6), "res5": (2, 3)}
    assert [value.shape[1] for value in stages.values()] == stage_channels(network.backbone)
    assert {name: tuple(value.shape[1:]) for name, value in network(images()).items()}["p3"] == (256, 8, 12)


@pytest.mark.parametrize("arch", NETWORKS)
@torch.no_grad()
def test_exported_weights_load_verify_and_convert(arch: str, tmp_path: Path) -> None:
    folder = exported(arch, tmp_path / "exported")
    network = ccop_hub.load(folder, pyramid=True)
    assert isinstance(network, BackboneFPN)
    stages = network.stages(images())
    torch.testing.assert_close(ccop_hub.load(folder)(images()), stages["res5"].mean((2, 3)))
    maps = ccop_hub.load(folder, features_only=True)(images())
    torch.testing.assert_close(maps[-1], stages["res5"])
    assert ccop_hub.verify(str(folder)).passed
    description = ccop_hub.info(str(folder))
    trained = sum(value.numel() for value in network.parameters())
    assert (description.backbone, description.parameters) == (arch, trained)
    ccop_hub.convert(str(folder), "timm", tmp_path / "timm")
    options = {"pretrained": True, "num_classes": 0}
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", features_only=True, **options).eval()
    torch.testing.assert_close(theirs(images())[-1], stages["res5"])
    assert isinstance(timm.create_model(f"local-dir:{tmp_path / 'timm'}", **options), nn.Module)
    torch.testing.assert_close(ccop_hub.load(tmp_path / "timm")(images()), stages["res5"].mean((2, 3)))
    with pytest.raises(UserError, match=r"no names for the tensors of .*: use safetensors, timm or onnx"):
        ccop_hub.convert(str(folder), "detectron2", tmp_path / "model.pkl")


def test_a_state_dict_is_recognised_if_its_backbone_is_named(tmp_path: Path) -> None:
    network = timm.create_model("test_convnext", num_classes=7)
    torch.save(network.state_dict(), tmp_path / "trained.pth")
    loaded = ccop_hub.load(tmp_path / "trained.pth", backbone="test_convnext")
    assert torch.equal(
        loaded.state_dict()["stages.1.blocks.0.mlp.fc1.weight"], network.stages[1].blocks[0].mlp.fc1.weight
    )
    with pytest.raises(UserError, match="no ResNet"):
        ccop_hub.load(tmp_path / "trained.pth")


@pytest.mark.parametrize("arch", ["test_vit", "test_maxvit", "swin_tiny_patch4_window7_224", "inception_v3", "none"])
def test_other_networks_are_refused_with_what_is_possible(arch: str) -> None:
    with pytest.raises(UserError, match=r"ResNet, RegNet, ConvNeXt.*convnext_tiny"):
        build_backbone(arch)


def test_resnets_are_built_as_before() -> None:
    backbone = build_backbone("resnet18")
    assert isinstance(backbone, ResNet)
    assert all((module.weight == 1).all() for module in backbone.modules() if isinstance(module, nn.BatchNorm2d))
    assert next(iter(build_network("resnet18").state_dict())) == "backbone.conv1.weight"
