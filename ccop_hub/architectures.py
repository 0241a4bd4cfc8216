"""The supported networks: a convolutional timm backbone, with or without a feature pyramid.

`BackboneFPN`'s state dict defines the project's canonical names: `backbone.` + timm's names, `fpn.` + torchvision's
`FeaturePyramidNetwork` names.
"""

from __future__ import annotations

import functools
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


STAGES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
"""Input pixels per cell of each backbone stage."""

POSSIBLE = (
    "use a convolutional timm network with features at strides 4, 8, 16 and 32: a ResNet, RegNet, ConvNeXt, "
    f"EfficientNet or MobileNet, such as {', '.join(HUB_ARCHITECTURES)}, convnext_tiny, regnety_008 or "
    "mobilenetv3_large_100"
)
"""Which backbones are possible, for errors."""


def build_backbone(arch: str, output_stride: int = 32) -> Any:
    """Build a randomly initialised timm network without a classifier, with every BN trainable.

    A ResNet uses Detectron2's initialisation, as the authors do: Kaiming normal for convolutions (fan out, ReLU), 1 for
    BN scales (timm would zero the last one of each residual branch) and 0 for BN shifts. All other networks use timm's,
    and have no layers after their last stage.

    Args:
        arch: timm name of a convolutional network with features at strides 4, 8, 16 and 32.
        output_stride: stride of the last stage, 32 or, by dilation instead of strides, 16.

    Raises:
        UserError: timm has no such model, or its features do not have these strides.
    """
    backbone = _timm_network(arch, output_stride)
    if not isinstance(backbone, ResNet):
        return backbone
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return backbone


def empty_backbone(arch: str) -> Any:
    """Build the same network as `build_backbone` on the `meta` device, for its names, shapes and types.

    Raises:
        UserError: as for `build_backbone`.
    """
    with uninitialised(), torch.device("meta"):
        return _timm_network(arch)


def empty_network(arch: str) -> BackboneFPN:
    """Build a `BackboneFPN` on the `meta` device, for its names, shapes and types, or to assign tensors to it.

    Raises:
        UserError: as for `build_backbone`.
    """
    with uninitialised(), torch.device("meta"):
        return build_network(arch)


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


def _timm_network(arch: str, output_stride: int = 32) -> Any:
    if not timm.is_model(arch):
        raise UserError(f"no network named {arch!r}: {POSSIBLE}")
    options = {} if output_stride == 32 else {"output_stride": output_stride}
    try:
        backbone = timm.create_model(arch, pretrained=False, num_classes=0, **options)
        if isinstance(backbone, ResNet):
            return backbone
        _require_stages(arch, output_stride)
        # Layers after the last stage (an EfficientNet's 1x1 convolution, a ConvNeXt's norm) would never be trained.
        backbone.prune_intermediate_layers(stage_indices(backbone, output_stride), prune_norm=True, prune_head=True)
        backbone.reset_classifier(0, "avg")
    except UserError:
        raise
    except Exception:  # what timm raises for a network without such features or options is up to each network
        raise UserError(f"{arch} does not compute the features that are needed here: {POSSIBLE}") from None
    return backbone


@functools.lru_cache(maxsize=64)
def _require_stages(arch: str, output_stride: int) -> None:
    """Check the sizes of a network's features for images of two sizes, without computing them.

    Raises:
        UserError: they are not feature maps of (N, C, H / stride, W / stride).
    """
    options = {} if output_stride == 32 else {"output_stride": output_stride}
    with uninitialised(), torch.device("meta"):
        network = timm.create_model(arch, pretrained=False, num_classes=0, **options).eval()
        indices = stage_indices(network, output_stride)
        for height, width in ((64, 96), (160, 128)):
            maps = network.forward_intermediates(
                torch.empty(1, 3, height, width), indices=indices, intermediates_only=True
            )
            for index, stride, features in zip(indices, STAGES.values(), maps, strict=True):
                step = min(stride, output_stride)
                expected = (1, network.feature_info[index]["num_chs"], height // step, width // step)
                if tuple(features.shape) != expected:
                    raise UserError(f"{arch} has features of shape {tuple(features.shape)[1:]}: {POSSIBLE}")


def stage_indices(backbone: Any, output_stride: int = 32) -> list[int]:
    """Return the indices in timm's `feature_info` of the features at strides 4, 8, 16 and 32.

    With an output stride of 16, the last two features have that stride.

    Raises:
        UserError: a stride is missing.
    """
    reductions = [info["reduction"] for info in backbone.feature_info]
    if output_stride == 16:
        own = [index for index, reduction in enumerate(reductions) if reduction == 16]
        first = [max(index for index, reduction in enumerate(reductions) if reduction == stride) for stride in (4, 8)]
        return [*first, own[-2], own[-1]]
    last = {reduction: index for index, reduction in enumerate(reductions)}
    if not set(STAGES.values()) <= last.keys():
        raise UserError(f"{type(backbone).__name__} has features at strides {sorted(last)}: {POSSIBLE}")
    return [last[stride] for stride in STAGES.values()]


def stage_channels(backbone: Any) -> list[int]:
    """Return the output channels of the four stages: [64, ..., 512] for ResNet-18, [256, ..., 2048] for ResNet-50."""
    return [backbone.feature_info[index]["num_chs"] for index in stage_indices(backbone)]


def backbone_stages(backbone: Any, images: Tensor, indices: Sequence[int]) -> dict[str, Tensor]:
    """Compute `{"res2": ..., ..., "res5": ...}` of any backbone; `indices` are its `stage_indices`."""
    maps = backbone.forward_intermediates(images, indices=list(indices), intermediates_only=True)
    return dict(zip(STAGES, maps, strict=True))


class BackboneFPN(nn.Module):
    """A timm backbone with torchvision's feature pyramid on its four stages.

    Lateral (1x1) and output (3x3) convolutions use BN and no bias. Levels are upsampled by nearest neighbour (x2) and
    summed; p6 is p5 subsampled by 2. FPN convolutions use Kaiming uniform initialisation with a = 1 (Detectron2's
    "c2_xavier").

    Attributes:
        arch: timm name of the backbone.
        backbone: the timm network, as `build_backbone` returns it.
        fpn: `torchvision.ops.FeaturePyramidNetwork`.
        strides: input pixels per cell, by level name.
        channels: channels, by level name.
    """

    def __init__(self, arch: str) -> None:
        super().__init__()
        self.arch = arch
        self.backbone = build_backbone(arch)
        self.indices = stage_indices(self.backbone)
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
        return backbone_stages(self.backbone, images, self.indices)

    def pyramid(self, stages: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute `{"p2": (N, 256, H/4, W/4), ..., "p6": (N, 256, H/64, W/64)}` from the output of `stages`."""
        named = {"p2": stages["res2"], "p3": stages["res3"], "p4": stages["res4"], "p5": stages["res5"]}
        levels = self.fpn(named)
        # torchvision calls its coarsest level "pool".
        return {"p2": levels["p2"], "p3": levels["p3"], "p4": levels["p4"], "p5": levels["p5"], "p6": levels["pool"]}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map (N, 3, H, W) float RGB images to `{"p2" .. "p6"}`: `pyramid(stages(images))`."""
        return self.pyramid(self.stages(images))


class ResNetFPN(BackboneFPN):
    """A `BackboneFPN` whose backbone is a `timm.models.resnet.ResNet`; it can be scripted."""

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """Compute backbone features; see `BackboneFPN.stages`."""
        # Unrolled, since TorchScript supports neither tuples of modules nor computed attribute names.
        body = self.backbone
        res2 = body.layer1(body.maxpool(body.act1(body.bn1(body.conv1(images)))))
        res3 = body.layer2(res2)
        res4 = body.layer3(res3)
        return {"res2": res2, "res3": res3, "res4": res4, "res5": body.layer4(res4)}


def build_network(arch: str) -> BackboneFPN:
    """Build a backbone with its pyramid, randomly initialised: a `ResNetFPN` for a ResNet.

    Raises:
        UserError: as for `build_backbone`.
    """
    is_resnet = arch in HUB_ARCHITECTURES or isinstance(empty_backbone(arch), ResNet)
    return ResNetFPN(arch) if is_resnet else BackboneFPN(arch)


def build_resnet_fpn(arch: str, seed: int) -> BackboneFPN:
    """Call `build_network` with weights determined by the seed, leaving the global random state untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(arch)
