import pytest
import torch
from ccop_eval.segmentation.network import Fcn16

from ccop_hub.architectures import ResNetFPN
from ccop_hub.sources.resolve import resolve


def test_network_is_the_backbone_at_stride_16():
    weights = resolve("random", "resnet50", 1)
    network = Fcn16(weights, 3, dilation=6, seed=0, frozen=False).eval()
    plain = ResNetFPN("resnet50").eval()
    plain.load_state_dict(dict(weights.tensors))
    image = torch.rand(1, 3, 65, 97) * 255
    with torch.no_grad():
        features = network.backbone.forward_features((image - network.mean) / network.std)
        stage4 = plain.stages((image - network.mean) / network.std)["res4"]
        assert features.shape[-2:] == stage4.shape[-2:]
        assert network(image).shape == (1, 3, 65, 97)
    dilations = [
        layer.dilation for layer in network.backbone.layer4.modules() if getattr(layer, "kernel_size", 0) == (3, 3)
    ]
    assert dilations == [(2, 2)] * 3
    head = [layer for layer in network.head if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.kernel_size, layer.dilation, layer.out_channels) for layer in head] == [
        ((3, 3), (6, 6), 256),
        ((3, 3), (6, 6), 256),
        ((1, 1), (1, 1), 3),
    ]


@pytest.mark.parametrize("arch", ["test_convnext", "test_efficientnet", "test_resnet"])
def test_any_backbone_is_dilated_to_stride_16_with_the_same_weights(arch):
    weights = resolve("random", arch, 1)
    network = Fcn16(weights, 3, dilation=1, seed=0, frozen=False).eval()
    image = torch.rand(2, 3, 64, 96) * 255
    seen = []
    network.head[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    with torch.no_grad():
        assert network(image).shape == (2, 3, 64, 96)
    assert seen[0][2:] == (4, 6)
    for name, value in weights.part("backbone").items():
        assert torch.equal(network.backbone.state_dict()[name], value), name
    network.train()(image).mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
