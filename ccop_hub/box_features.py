"""RoIAlign features of boxes, from the feature pyramid or the backbone stages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from .architectures import PYRAMID_STRIDES
from .frozen_network import FrozenNetwork

RESOLUTION = 7
"""Side of the RoIAlign grid, in cells (as in Detectron2's box head)."""

CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4
"""Boxes of this side, in pixels, are pooled from this pyramid level (Lin et al. 2017, equation 1)."""

LEVELS = ("p2", "p3", "p4", "p5")
DIVISOR = 32
"""Image sides are padded to a multiple of this, the coarsest stride."""


def pyramid_features(network: FrozenNetwork, image: Tensor, boxes: Tensor) -> Tensor:
    """Pool each box 7 x 7 from the pyramid level for its size, and average: (n, 256).

    Args:
        network: a network with `fpn` loaded.
        image: (1, 3, H, W) RGB on the 0-255 scale, sides divisible by 32.
        boxes: (n, 4) xyxy pixels of the image.
    """
    levels = network.pyramid(image)
    assigned = assign_levels(boxes)
    features = torch.zeros(len(boxes), levels["p2"].shape[1], device=boxes.device)
    for number, name in enumerate(LEVELS):
        chosen = (assigned == number).nonzero().flatten()
        if len(chosen):
            features[chosen] = pool_boxes(levels[name], boxes[chosen], PYRAMID_STRIDES[name])
    return features


def stage_features(network: FrozenNetwork, image: Tensor, boxes: Tensor) -> Tensor:
    """Pool each box 7 x 7 from every stage, average, and L2-normalise per stage: (n, C2 + C3 + C4 + C5).

    Takes the same arguments as `pyramid_features`.
    """
    stages = network.stages(image)
    return torch.cat(
        [F.normalize(pool_boxes(stages[f"res{number}"], boxes, 2**number), dim=1) for number in range(2, 6)], dim=1
    )


def assign_levels(boxes: Tensor) -> Tensor:
    """Index into `LEVELS` for each box, by level floor(4 + log2(side / 224)), clamped; (n,) int64."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_SIDE + 1e-8))
    return (level.clamp(2, 5) - 2).long()


def pool_boxes(features: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """RoIAlign each box 7 x 7 and average: (n, C) float32.

    Args:
        features: (1, C, H / stride, W / stride).
        boxes: (n, 4) xyxy pixels of the image.
        stride: input pixels per cell.
    """
    pooled: Tensor = roi_align(
        features.float(), [boxes], RESOLUTION, spatial_scale=1 / stride, sampling_ratio=0, aligned=True
    )
    return pooled.mean((2, 3))


def padded(image: Tensor) -> Tensor:
    """Pad a (3, H, W) image with zeros at the right and the bottom to sides divisible by 32: (1, 3, H', W')."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % DIVISOR, 0, -height % DIVISOR)).unsqueeze(0)
