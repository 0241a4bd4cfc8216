from __future__ import annotations

import pytest
import torch
from fvcore.nn import FlopCountAnalysis

from ccop_hub.architectures import ResNetFPN, empty_network
from ccop_hub.plain_resnets import PLAIN_RESNETS, canonical_shapes, multiply_adds, same_names


@pytest.mark.parametrize("arch", PLAIN_RESNETS)
def test_shapes_are_those_of_the_network(arch: str) -> None:
    state = empty_network(arch).state_dict()
    assert canonical_shapes(arch, with_fpn=True) == {name: tuple(value.shape) for name, value in state.items()}
    assert list(canonical_shapes(arch, with_fpn=True)) == list(state)
    backbone = [name for name in state if name.startswith("backbone.")]
    assert list(canonical_shapes(arch, with_fpn=False)) == backbone


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_multiply_adds_are_those_that_fvcore_counts(arch: str) -> None:
    network, images = ResNetFPN(arch).eval(), torch.zeros(1, 3, 64, 64)
    for module, with_fpn in ((network.backbone, False), (network, True)):
        counted = FlopCountAnalysis(module, images).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert multiply_adds(arch, 64, with_fpn) == counted.total()


def test_wider_networks_share_the_names_of_a_layout() -> None:
    assert same_names("resnet50") == ("resnet50", "wide_resnet50_2", "resnext50_32x4d")
    assert same_names("resnet18") == ("resnet18",)
    assert all(arch in same_names(arch)[:1] for arch in ("resnet34", "resnet101", "resnet152"))
