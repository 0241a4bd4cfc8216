import dataclasses
import re

import pytest
import torch

from ccop_hub.architectures import ResNetFPN, build_backbone, build_resnet_fpn
from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.formats.tensor_use import load_into
from ccop_hub.sources.resolve import resolve


@pytest.fixture(scope="module")
def weights() -> Weights:
    return dataclasses.replace(resolve("random", "resnet18", 3), unused=("head.weight",))


def other_network() -> ResNetFPN:
    return build_resnet_fpn("resnet18", seed=8)


def test_every_tensor_of_the_parts_arrives_and_no_other(weights: Weights) -> None:
    network, before = other_network(), other_network().state_dict()
    use = load_into(network, weights, ("backbone",))
    for name, value in network.state_dict().items():
        assert torch.equal(value, (weights.tensors if name.startswith("backbone.") else before)[name]), name
    assert use.used == sorted(name for name in weights.tensors if name.startswith("backbone."))
    assert set(use.unused) == {name for name in weights.tensors if name.startswith("fpn.")} | {"head.weight"}
    assert use.missing == []
    load_into(network, weights, ("backbone", "fpn"))
    assert all(torch.equal(value, weights.tensors[name]) for name, value in network.state_dict().items())


def test_a_backbone_by_itself_has_shorter_names(weights: Weights) -> None:
    backbone = build_backbone("resnet18")
    load_into(backbone, weights, ("backbone",), prefix="backbone.")
    assert all(torch.equal(value, weights.tensors[f"backbone.{name}"]) for name, value in backbone.state_dict().items())


def test_a_part_that_the_weights_lack_is_named(weights: Weights) -> None:
    bare = {name: value for name, value in weights.tensors.items() if name.startswith("backbone.")}
    with pytest.raises(UserError, match="has no feature pyramid"):
        load_into(other_network(), dataclasses.replace(weights, tensors=bare), ("backbone", "fpn"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"backbone.conv1.weight": None}, "it lacks 1 tensor (backbone.conv1.weight)"),
        ({"backbone.stem.weight": torch.zeros(1)}, "no place for 1 tensor (backbone.stem.weight)"),
        ({"backbone.bn1.bias": torch.zeros(3)}, "backbone.bn1.bias is (3,) instead of (64,)"),
        # A plain copy would broadcast a scalar.
        ({"backbone.bn1.bias": torch.zeros(())}, "backbone.bn1.bias is () instead of (64,)"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(
    weights: Weights, changed: dict[str, torch.Tensor | None], said: str
) -> None:
    network, before = other_network(), other_network().state_dict()
    tensors = {name: value for name, value in {**weights.tensors, **changed}.items() if value is not None}
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        load_into(network, dataclasses.replace(weights, tensors=tensors), ("backbone", "fpn"))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
