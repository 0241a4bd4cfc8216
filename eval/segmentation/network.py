"""The network of both Cityscapes protocols: a stride-16 backbone with a small convolutional head."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.resnet import ResNet
from torch import Tensor, nn

from ccop_hub.architectures import BackboneFPN, build_backbone, stage_channels, stage_indices, uninitialised
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.frozen_network import load_network
from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD

OUTPUT_STRIDE = 16
HEAD_CHANNELS = 256
CLASSIFIER_STD = 0.01


class Fcn16(nn.Module):
    """FCN on a backbone with a dilated last stage: 2 x (3x3 conv with 256 channels, BN, ReLU) and a 1x1 classifier.

    Args:
        weights: weights of the backbone; an unused backbone tensor is an error.
        classes: number of classes.
        dilation: dilation of the head's 3x3 convolutions.
        seed: seed of the head's initial weights.
        frozen: whether to freeze the backbone (eval mode, no gradients).

    Attributes:
        tensors: which of the weights' tensors were used.
    """

    def __init__(self, weights: Weights, classes: int, dilation: int, seed: int, frozen: bool) -> None:
        super().__init__()
        network, self.tensors = load_network(weights, ("backbone",))
        self.backbone = dilated(network).requires_grad_(not frozen)
        self._last = None if isinstance(self.backbone, ResNet) else stage_indices(self.backbone, OUTPUT_STRIDE)[-1:]
        self.frozen = frozen
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = _make_head(stage_channels(network.backbone)[-1], classes, dilation)
        input_facts = weights.facts.get("input") or {}
        mean, std = input_facts.get("mean", PIXEL_MEAN), input_facts.get("std", PIXEL_STD)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> Fcn16:
        """Set train mode, but keep a frozen backbone in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) RGB on the 0-255 scale -> (N, classes, H, W) logits."""
        normalised = (images.float() - self.get_buffer("mean")) / self.get_buffer("std")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if self._last is None:
                features = self.backbone.forward_features(normalised)
            else:
                (features,) = self.backbone.forward_intermediates(
                    normalised, indices=self._last, intermediates_only=True
                )
        logits = self.head(features).float()
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=True)


def dilated(network: BackboneFPN) -> Any:
    """Return the backbone with a dilation of 2 instead of the last stage's stride of 2: output stride 16, same weights.

    The last stage of a ResNet is changed in place, as the protocols do; timm dilates all other networks, and ResNets
    that pool inside that stage.

    Raises:
        UserError: timm cannot dilate the network.
    """
    backbone = network.backbone
    pools = (nn.AvgPool2d, nn.MaxPool2d)
    if not isinstance(backbone, ResNet) or any(isinstance(module, pools) for module in backbone.layer4.modules()):
        with uninitialised():
            other = build_backbone(network.arch, OUTPUT_STRIDE)
        other.load_state_dict(backbone.state_dict())
        return other
    for module in backbone.layer4.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)
    return backbone


def _make_head(channels: int, classes: int, dilation: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (channels, HEAD_CHANNELS):
        convolution = nn.Conv2d(inputs, HEAD_CHANNELS, 3, padding=dilation, dilation=dilation, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(HEAD_CHANNELS), nn.ReLU(inplace=True)]
    classifier = nn.Conv2d(HEAD_CHANNELS, classes, 1)
    nn.init.normal_(classifier.weight, std=CLASSIFIER_STD)
    assert classifier.bias is not None
    nn.init.zeros_(classifier.bias)
    return nn.Sequential(*layers, classifier)
