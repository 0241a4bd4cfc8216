"""Activation checkpointing saves memory and changes nothing else."""

import copy

import pytest
import torch
from ccop_pretrain.training.activation_checkpointing import checkpoint_activations

from ccop_hub.architectures import ResNetFPN, build_network


def train(network, steps=2):
    """Bytes saved for backward, and the last gradients."""
    kept = 0

    def count(tensor):
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimiser.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            levels = network(torch.randn(4, 3, 64, 64, generator=generator))
        sum(level.square().mean() for level in levels.values()).backward()
        optimiser.step()
    return kept, {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("arch", ["resnet18", "test_efficientnet", "test_convnext"])
def test_less_is_kept_and_gradients_weights_and_statistics_are_the_same_bits(arch):
    torch.manual_seed(0)
    plain = build_network(arch)
    checkpointed = copy.deepcopy(plain)
    checkpoint_activations(checkpointed)
    assert checkpointed.state_dict().keys() == plain.state_dict().keys()
    usual, expected = train(plain)
    little, gradients = train(checkpointed)
    assert little < usual / (2 if arch == "resnet18" else 1)
    for name, gradient in expected.items():
        assert torch.equal(gradients[name], gradient), name
    # Running statistics too: recomputing the forward pass must not update them again.
    for name, value in plain.state_dict().items():
        assert torch.equal(checkpointed.state_dict()[name], value), name
    assert {norm.momentum for norm in checkpointed.modules() if isinstance(norm, torch.nn.BatchNorm2d)} == {0.1}


def test_nothing_is_kept_or_repeated_without_gradients():
    torch.manual_seed(0)
    network = ResNetFPN("resnet18").eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(images)
        checkpoint_activations(network)
        assert all(torch.equal(level, expected[name]) for name, level in network(images).items())
