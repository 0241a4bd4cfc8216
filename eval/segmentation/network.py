"""The network of both Cityscapes protocols: a stride-16 ResNet with a small convolutional head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.resnet import ResNet
from torch import Tensor, nn

from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.frozen_network import load_network
from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD

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
        self.backbone: ResNet = network.backbone.requires_grad_(not frozen)
        dilate_last_stage(self.backbone)
        self.frozen = frozen
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = _make_head(self.backbone.num_features, classes, dilation)
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
            features = self.backbone.forward_features(normalised)
        logits = self.head(features).float()
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=True)


def dilate_last_stage(backbone: ResNet) -> None:
    """Replace the last stage's stride of 2 with a dilation of 2, in place: output stride 16, same weights.

    Raises:
        UserError: the stage downsamples by anything other than strided convolutions.
    """
    for module in backbone.layer4.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)
        elif isinstance(module, nn.AvgPool2d | nn.MaxPool2d):
            raise UserError("this ResNet pools inside its last stage and cannot be dilated: use a plain one (resnet50)")


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
