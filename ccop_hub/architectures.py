"""The supported networks: a timm ResNet, with or without a feature pyramid.

`ResNetFPN`'s state dict defines the project's canonical names: `backbone.` + timm's ResNet names, `fpn.` +
torchvision's `FeaturePyramidNetwork` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from .errors import UserError
from .plain_resnets import FPN_CHANNELS as FPN_CHANNELS
from .plain_resnets import HUB_ARCHITECTURES as HUB_ARCHITECTURES

PYRAMID_STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
"""Input pixels per cell of each pyramid level."""


def build_backbone(arch: str) -> ResNet:
    """Build a randomly initialised timm ResNet without a classifier (`num_classes=0`), with every BN trainable.

    Uses Detectron2's initialisation, as the authors do: Kaiming normal for convolutions (fan out, ReLU), 1 for BN
    scales (timm would zero the last one of each residual branch) and 0 for BN shifts.

    Args:
        arch: name of any timm model that is a `timm.models.resnet.ResNet`.

    Raises:
        UserError: timm has no such model, or the model is not a ResNet.
    """
    backbone = _timm_resnet(arch)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return backbone


def empty_backbone(arch: str) -> ResNet:
    """Build the same network as `build_backbone` on the `meta` device, for its names, shapes and types.

    Raises:
        UserError: as for `build_backbone`.
    """
    with uninitialised(), torch.device("meta"):
        return _timm_resnet(arch)


def empty_resnet_fpn(arch: str) -> ResNetFPN:
    """Build a `ResNetFPN` on the `meta` device, for its names, shapes and types, or to assign tensors to it.

    Raises:
        UserError: as for `build_backbone`.
    """
    with uninitialised(), torch.device("meta"):
        return ResNetFPN(arch)


@contextmanager
def uninitialised() -> Iterator[None]:
    """Build networks without initial values inside the block, because weights are loaded into them next.

    Parameters contain arbitrary memory; buffers are complete. torch's random state is left unchanged.
    """
    with _WithoutInitialisation():
        yield


class _WithoutInitialisation(TorchFunctionMode):
    """Skips `torch.nn.init` and in-place random draws."""

    _draws = (torch.Tensor.normal_, torch.Tensor.uniform_)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__ or func in self._draws:
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)


def _timm_resnet(arch: str) -> ResNet:
    if not timm.is_model(arch):
        raise UserError(f"no network named {arch!r}: use a timm ResNet such as {', '.join(HUB_ARCHITECTURES)}")
    backbone = timm.create_model(arch, pretrained=False, num_classes=0)
    if not isinstance(backbone, ResNet):
        raise UserError(f"{arch!r} is not a timm ResNet: use one, such as {', '.join(HUB_ARCHITECTURES)}")
    return backbone


def stage_channels(backbone: ResNet) -> list[int]:
    """Return the output channels of the four stages: [64, ..., 512] for ResNet-18, [256, ..., 2048] for ResNet-50."""
    return [info["num_chs"] for info in backbone.feature_info[1:]]


class ResNetFPN(nn.Module):
    """A timm ResNet with torchvision's feature pyramid on its four stages.

    Lateral (1x1) and output (3x3) convolutions use BN and no bias. Levels are upsampled by nearest neighbour (x2) and
    summed; p6 is p5 subsampled by 2. FPN convolutions use Kaiming uniform initialisation with a = 1 (Detectron2's
    "c2_xavier").

    Attributes:
        arch: timm name of the backbone.
        backbone: `timm.models.resnet.ResNet`, `num_classes=0`.
        fpn: `torchvision.ops.FeaturePyramidNetwork`.
        strides: input pixels per cell, by level name.
        channels: channels, by level name.
    """

    def __init__(self, arch: str) -> None:
        super().__init__()
        self.arch = arch
        self.backbone = build_backbone(arch)
        self.fpn = FeaturePyramidNetwork(
            stage_channels(self.backbone), FPN_CHANNELS, extra_blocks=LastLevelMaxPool(), norm_layer=nn.BatchNorm2d
        )
        for module in self.fpn.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
        self.strides = dict(PYRAMID_STRIDES)
        self.channels = dict.fromkeys(PYRAMID_STRIDES, FPN_CHANNELS)

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """Compute backbone features.

        Args:
            images: (N, 3, H, W) float, RGB, normalised with the checkpoint's mean and std.

        Returns:
            `{"res2": (N, C2, H/4, W/4), ..., "res5": (N, C5, H/32, W/32)}`.
        """
        # Unrolled, since TorchScript supports neither tuples of modules nor computed attribute names.
        body = self.backbone
        res2 = body.layer1(body.maxpool(body.act1(body.bn1(body.conv1(images)))))
        res3 = body.layer2(res2)
        res4 = body.layer3(res3)
        return {"res2": res2, "res3": res3, "res4": res4, "res5": body.layer4(res4)}

    def pyramid(self, stages: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute `{"p2": (N, 256, H/4, W/4), ..., "p6": (N, 256, H/64, W/64)}` from the output of `stages`."""
        named = {"p2": stages["res2"], "p3": stages["res3"], "p4": stages["res4"], "p5": stages["res5"]}
        levels = self.fpn(named)
        # torchvision calls its coarsest level "pool".
        return {"p2": levels["p2"], "p3": levels["p3"], "p4": levels["p4"], "p5": levels["p5"], "p6": levels["pool"]}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map (N, 3, H, W) float RGB images to `{"p2" .. "p6"}`: `pyramid(stages(images))`."""
        return self.pyramid(self.stages(images))


def build_resnet_fpn(arch: str, seed: int) -> ResNetFPN:
    """Build a `ResNetFPN` with weights determined by `arch` and `seed`, leaving the global random state untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNetFPN(arch)
