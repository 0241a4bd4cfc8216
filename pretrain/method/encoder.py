"""The encoder: a ResNet with a feature pyramid, plus heads that embed whole images and boxes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.nn.functional import batch_norm, normalize
from torchvision.ops import roi_align

from ccop_hub.architectures import FPN_CHANNELS, PYRAMID_STRIDES, ResNetFPN, stage_channels

from .boxes import box_areas
from .losses import full_precision

LEVEL_LIMITS = {"p2": 48.0, "p3": 96.0, "p4": 192.0}
"""Largest sqrt(area) pooled from each level, in pixels of a 224 px image; larger boxes are pooled from p5.

The authors' code pools boxes over 224 px from p2, but no box in a 224 px image is that large.
"""

REFERENCE_IMAGE_SIZE = 224
"""Image side in pixels at which `LEVEL_LIMITS` applies (the paper's crop size)."""

POOLED_SIDE = 7
"""ROIAlign output size (the authors use aligned ROIAlign with an adaptive sampling ratio, 0)."""

HEAD_INIT_STD = 0.01
"""Standard deviation of the initial weights of both heads, as in the authors' code."""


@dataclass(frozen=True)
class Features:
    """Features of a batch of images.

    Attributes:
        pooled: (N, C) average-pooled last stage.
        pyramid: `{"p2": (N, 256, H/4, W/4), ...}`; empty if the encoder has no box head.
    """

    pooled: Tensor
    pyramid: dict[str, Tensor]


class Encoder(nn.Module):
    """Embeds images from the last stage and boxes from the pyramid, with a separate head for each.

    Only the requested heads are built; without a box head, the pyramid is neither run nor trained.

    Args:
        arch: timm name of the backbone.
        dropout: dropout probability of both heads.
        image_size: side of the input images in pixels; the level thresholds scale with it.
        hidden_dim: hidden units of both heads.
        embedding_dim: dimension of both embeddings.
        image_head: whether to build the image head.
        box_head: whether to build the box head.
        head_init: `paper` (N(0, 0.01), biases 0) or `pytorch` (the default of `torch.nn.Linear`).
        head_norm: whether both heads use batch norm.
        zero_init_last: whether residual blocks start as the identity (timm's `zero_init_last`).
        groups: number of groups that a training batch is split into, so that each gets its own batch norm statistics.

    Attributes:
        network: the `ResNetFPN`, which is the part that gets exported.
    """

    def __init__(
        self,
        arch: str,
        dropout: float = 0.1,
        image_size: int = REFERENCE_IMAGE_SIZE,
        hidden_dim: int = 2048,
        embedding_dim: int = 128,
        image_head: bool = True,
        box_head: bool = True,
        head_init: Literal["paper", "pytorch"] = "paper",
        head_norm: bool = False,
        zero_init_last: bool = False,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.image_size = image_size
        self.embedding_dim = embedding_dim
        self.network = ResNetFPN(arch)
        channels = stage_channels(self.network.backbone)[-1]
        cells = FPN_CHANNELS * POOLED_SIDE**2
        if zero_init_last:
            for block in self.network.backbone.modules():
                if isinstance(block, BasicBlock | Bottleneck):
                    block.zero_init_last()
        options: dict[str, Any] = {"hidden": hidden_dim, "outputs": embedding_dim, "dropout": dropout}
        options |= {"init": head_init, "norm": head_norm}
        self.image_head = build_head(channels, **options) if image_head else None
        self.box_head = build_head(cells, **options) if box_head else None
        if self.box_head is None:
            self.network.fpn.requires_grad_(False)

    def forward(self, images: Tensor) -> Features:
        """Run the network on (N, 3, H, W) float RGB images, normalised with the checkpoint's mean and std."""
        parts = [self._features(part) for part in images.tensor_split(self._parts)]
        if len(parts) == 1:
            return parts[0]
        pyramid = {name: torch.cat([part.pyramid[name] for part in parts]) for name in parts[0].pyramid}
        return Features(torch.cat([part.pooled for part in parts]), pyramid)

    @property
    def _parts(self) -> int:
        return self.groups if self.training else 1

    def _features(self, images: Tensor) -> Features:
        stages = self.network.stages(images)
        pyramid = {} if self.box_head is None else self.network.pyramid(stages)
        return Features(stages["res5"].mean(dim=(2, 3)), pyramid)

    def embed_images(self, pooled: Tensor) -> Tensor:
        """Embed (N, C) pooled features as (N, embedding_dim) unit vectors, in float32 or float64.

        Raises:
            ValueError: the encoder has no image head.
        """
        if self.image_head is None:
            raise ValueError("this encoder has no image head")
        return self._embed(self.image_head, pooled, [1] * len(pooled))

    def embed_boxes(self, pyramid: dict[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Embed the boxes of each image.

        Args:
            pyramid: pyramid levels from `forward`.
            boxes: one (n_i, 4) float32 xyxy tensor per image, in pixels.

        Returns:
            (sum of n_i, embedding_dim) unit vectors, image by image, in float32 or float64.

        Raises:
            ValueError: the encoder has no box head.
        """
        if self.box_head is None:
            raise ValueError("this encoder has no box head")
        rows = pool_boxes(pyramid, boxes, self.image_size).flatten(1)
        return self._embed(self.box_head, rows, [len(each) for each in boxes])

    def _embed(self, head: nn.Module, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Embed (sum of counts, C) features, `counts[i]` rows for image i, as (sum of counts, D) unit vectors."""
        images = torch.tensor(list(counts), dtype=torch.long).tensor_split(self._parts)
        parts = torch.split(rows, [int(part.sum()) for part in images])
        outputs = [head(part) for part in parts]
        return normalize(full_precision(outputs[0] if len(outputs) == 1 else torch.cat(outputs)))


class HeadNorm(nn.BatchNorm1d):
    """Batch norm that falls back to its running statistics when given fewer than two rows."""

    def forward(self, rows: Tensor) -> Tensor:
        """(N, C) -> (N, C); N may be 0."""
        if self.training and len(rows) < 2:
            return batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(rows)


def build_head(
    inputs: int,
    hidden: int,
    outputs: int,
    dropout: float,
    init: Literal["paper", "pytorch"] = "paper",
    norm: bool = False,
) -> nn.Sequential:
    """Build a head: linear, batch norm (if `norm`), dropout, ReLU, linear. See `Encoder` for `init`."""
    layers: list[tuple[str, nn.Module]] = [
        ("hidden", nn.Linear(inputs, hidden)),
        *([("norm", HeadNorm(hidden))] if norm else []),
        ("dropout", nn.Dropout(dropout)),
        ("relu", nn.ReLU()),
        ("output", nn.Linear(hidden, outputs)),
    ]
    for _, layer in layers:
        if init == "paper" and isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=HEAD_INIT_STD)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(OrderedDict(layers))


def box_levels(boxes: Tensor, image_size: int) -> Tensor:
    """Assign each box to a pyramid level by its size (0 for p2 .. 3 for p5).

    Args:
        boxes: (N, 4) float32 xyxy pixels.
        image_size: side of the images in pixels.

    Returns:
        (N,) long.
    """
    limits = boxes.new_tensor(list(LEVEL_LIMITS.values())) * (image_size / REFERENCE_IMAGE_SIZE)
    return torch.bucketize(box_areas(boxes).sqrt(), limits)


def pool_boxes(pyramid: dict[str, Tensor], boxes: Sequence[Tensor], image_size: int) -> Tensor:
    """ROIAlign each box from the pyramid level that fits its size.

    Levels without boxes still take part, so that every pyramid parameter gets a gradient.

    Args:
        pyramid: `{"p2": (B, C, H/4, W/4), ..., "p5": ...}`; other levels are ignored.
        boxes: one (n_i, 4) float32 xyxy tensor for each of the B images, in pixels.
        image_size: side of the images in pixels.

    Returns:
        (sum of n_i, C, 7, 7), image by image.
    """
    rows = torch.cat(list(boxes)).float()
    image = torch.repeat_interleave(torch.tensor([len(part) for part in boxes])).to(rows)
    rois = torch.cat([image.unsqueeze(1), rows], dim=1)
    levels = box_levels(rows, image_size)
    pooled, order = [], []
    for index, name in enumerate((*LEVEL_LIMITS, "p5")):
        (members,) = torch.where(levels == index)
        features = full_precision(pyramid[name])
        scale = 1 / PYRAMID_STRIDES[name]
        pooled.append(roi_align(features, rois[members].to(features), POOLED_SIDE, scale, aligned=True))
        order.append(members)
    return torch.cat(pooled)[torch.cat(order).argsort()]
