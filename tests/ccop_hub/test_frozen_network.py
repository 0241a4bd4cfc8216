import pytest
import torch

from ccop_hub.architectures import ResNetFPN
from ccop_hub.frozen_network import FrozenNetwork, load_network
from ccop_hub.sources.resolve import resolve


@pytest.fixture(scope="module")
def weights():
    return resolve("random", "resnet18", 3)


def test_frozen_network_computes_what_the_weights_compute(weights):
    frozen = FrozenNetwork(weights, ("backbone", "fpn"))
    plain = ResNetFPN("resnet18").eval()
    plain.load_state_dict(dict(weights.tensors))
    image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    with torch.no_grad():
        stages = plain.stages((image - mean.view(-1, 1, 1)) / std.view(-1, 1, 1))
    torch.testing.assert_close(frozen.stages(image)["res5"], stages["res5"])
    torch.testing.assert_close(frozen.pooled(image), stages["res5"].mean((2, 3)))
    torch.testing.assert_close(frozen.pyramid(image)["p3"], plain.pyramid(stages)["p3"])


def test_frozen_network_stays_in_eval_mode_and_verifies_itself(weights):
    frozen = FrozenNetwork(weights).train()
    assert not any(module.training for module in frozen.modules())
    frozen.pooled(torch.zeros(2, 3, 64, 64))
    frozen.verify()
    frozen.network.backbone.bn1.running_mean[0] += 1e-6
    with pytest.raises(RuntimeError, match="changed during the evaluation"):
        frozen.verify()


def test_module_in_train_mode_voids_the_measurement(weights):
    frozen = FrozenNetwork(weights)
    frozen.network.backbone.layer1.train()
    with pytest.raises(RuntimeError, match="changed during the evaluation"):
        frozen.verify()


def test_every_tensor_is_accounted_for(weights):
    _, use = load_network(weights, ("backbone",))
    assert set(use.used) | set(use.unused) == set(weights.tensors)
    assert all(name.startswith("fpn.") for name in use.unused)
