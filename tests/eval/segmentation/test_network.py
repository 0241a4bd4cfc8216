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
