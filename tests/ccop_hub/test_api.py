"""The Python functions of `ccop_hub`."""

import inspect
import subprocess
import sys

import pytest
import torch
from timm.models import FeatureListNet
from timm.models.resnet import ResNet

import ccop_hub
from ccop_hub.architectures import ResNetFPN, build_resnet_fpn
from ccop_hub.formats.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder, build_resnet_fpn("resnet18", seed=3).state_dict(), {"arch": "resnet18"})
    return folder


def test_load_takes_the_backbone_from_the_weights(checkpoint):
    expected = build_resnet_fpn("resnet18", seed=3).state_dict()
    backbone = ccop_hub.load(checkpoint)
    assert isinstance(backbone, ResNet)
    assert all(torch.equal(value, expected[f"backbone.{name}"]) for name, value in backbone.state_dict().items())
    pyramid = ccop_hub.load(str(checkpoint), pyramid=True)
    assert isinstance(pyramid, ResNetFPN)
    assert all(torch.equal(value, expected[name]) for name, value in pyramid.state_dict().items())
    stages = ccop_hub.load(checkpoint, features_only=True)
    assert isinstance(stages, FeatureListNet)
    assert [features.shape[1] for features in stages(torch.zeros(1, 3, 64, 64))] == [64, 64, 128, 256, 512]
    assert not any(network.training for network in (backbone, pyramid, stages))


def test_load_refuses_what_does_not_go_together(checkpoint):
    with pytest.raises(ccop_hub.UserError, match="resnet18, not a resnet50"):
        ccop_hub.load(checkpoint, backbone="resnet50")
    with pytest.raises(ccop_hub.UserError, match="features_only"):
        ccop_hub.load(checkpoint, pyramid=True, features_only=True)


def test_info_says_what_the_weights_are_and_how_they_load(checkpoint):
    found = ccop_hub.info(checkpoint)
    assert found == ccop_hub.info(str(checkpoint))
    assert (found.backbone, found.parts) == ("resnet18", ("backbone", "fpn"))
    assert found.parameters == sum(value.numel() for value in build_resnet_fpn("resnet18", seed=0).parameters())
    names: dict[str, object] = {}
    exec(found.usage, names)
    assert isinstance(names["network"], ResNetFPN)
    assert f"{found.parameters:,}" in found._repr_html_()
    untrained = ccop_hub.info("random", "resnet18")
    assert untrained.usage.endswith('ccop_hub.load("random", backbone="resnet18", pyramid=True)')


def test_convert_and_verify_return_what_they_found(checkpoint, tmp_path):
    written = ccop_hub.convert(checkpoint, to="torchvision", out=tmp_path / "model.pth")
    assert written.path == tmp_path / "model.pth"
    assert torch.load(written.path, weights_only=True)["body.conv1.weight"].shape == (64, 3, 7, 7)
    with pytest.raises(ccop_hub.UserError, match="--overwrite"):
        ccop_hub.convert(str(checkpoint), to="torchvision", out=tmp_path / "model.pth")
    found = ccop_hub.verify(str(checkpoint))
    assert found.passed
    assert "ok" in found._repr_html_()
    weights = next(checkpoint.glob("*.safetensors"))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    content = bytearray(weights.read_bytes())
    content[-4:] = b"\x00\x00\xc0\x7f"  # the last float becomes NaN
    (damaged / weights.name).write_bytes(content)
    assert not ccop_hub.verify(str(damaged)).passed


def test_wrong_settings_are_one_line(checkpoint, tmp_path):
    with pytest.raises(ccop_hub.UserError, match="did you mean torchvision"):
        ccop_hub.convert(str(checkpoint), to="torchvison", out=tmp_path / "model.pth")


def test_everything_public_is_documented_and_loads_when_it_is_asked_for():
    for name in ccop_hub.__all__:
        assert name in dir(ccop_hub)
        assert name == "__version__" or inspect.getdoc(getattr(ccop_hub, name))
    code = "import sys, ccop_hub; dir(ccop_hub); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "pydantic", "timm", "annotated_types"} & set(found) == set()
