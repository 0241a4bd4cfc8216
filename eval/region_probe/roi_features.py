"""RoIAlign features of boxes, from the feature pyramid or the backbone stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.ops import roi_align
from torchvision.transforms.functional import pil_to_tensor

from ccop_hub.architectures import PYRAMID_STRIDES

from ..common.compute import readable
from ..common.images import read_rgb
from ..frozen.network import FrozenNetwork
from .coco_boxes import BoxedImages

RESOLUTION = 7
"""Side of the RoIAlign grid, in cells (as in Detectron2's box head)."""

CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4
"""Boxes of this side, in pixels, are pooled from this pyramid level (Lin et al. 2017, equation 1)."""

LEVELS = ("p2", "p3", "p4", "p5")
DIVISOR = 32
"""Image sides are padded to a multiple of this, the coarsest stride."""

Kind = Literal["pyramid", "stages"]


class ScaledImages(Dataset[tuple[Tensor, Tensor]]):
    """Images at test size with their boxes: ((3, H, W) uint8 RGB, (n, 4) float32 xyxy in pixels of the scaled image).

    Args:
        split: the images and boxes.
        short_side: shorter side, in pixels.
        long_side: maximum longer side, in pixels.
    """

    def __init__(self, split: BoxedImages, short_side: int, long_side: int) -> None:
        self.split, self.short_side, self.long_side = split, short_side, long_side

    def __len__(self) -> int:
        return len(self.split.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = read_rgb(self.split.paths[index])
        scale = min(self.short_side / min(image.size), self.long_side / max(image.size))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        factors = np.array([size[0] / image.width, size[1] / image.height] * 2, dtype=np.float32)
        return pil_to_tensor(image.resize(size)), torch.from_numpy(self.split.boxes[index] * factors)


def box_features(
    fabric: Fabric, images: ScaledImages, network: FrozenNetwork, kind: Kind, workers: int
) -> Callable[[Sequence[int]], Iterable[Tensor]]:
    """Make a `compute` function for `cached_features` that yields (n_i, D) rows per image, one per box.

    Images are processed one at a time, since padding to a common size would change features near the border.
    """
    pool = pyramid_features if kind == "pyramid" else stage_features

    def compute(items: Sequence[int]) -> Iterable[Tensor]:
        loader = DataLoader(Subset(images, items), batch_size=None, num_workers=workers)
        for image, boxes in readable(loader):
            pixels, regions = fabric.to_device(image), fabric.to_device(boxes)
            with torch.no_grad(), fabric.autocast():
                yield pool(network, _padded(pixels), regions).float().cpu()

    return compute


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
            features[chosen] = _pool(levels[name], boxes[chosen], PYRAMID_STRIDES[name])
    return features


def stage_features(network: FrozenNetwork, image: Tensor, boxes: Tensor) -> Tensor:
    """Pool each box 7 x 7 from every stage, average, and L2-normalise per stage: (n, C2 + C3 + C4 + C5).

    Takes the same arguments as `pyramid_features`.
    """
    stages = network.stages(image)
    return torch.cat(
        [F.normalize(_pool(stages[f"res{number}"], boxes, 2**number), dim=1) for number in range(2, 6)], dim=1
    )


def assign_levels(boxes: Tensor) -> Tensor:
    """Index into `LEVELS` for each box, by level floor(4 + log2(side / 224)), clamped; (n,) int64."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_SIDE + 1e-8))
    return (level.clamp(2, 5) - 2).long()


def _pool(features: Tensor, boxes: Tensor, stride: int) -> Tensor:
    pooled: Tensor = roi_align(
        features.float(), [boxes], RESOLUTION, spatial_scale=1 / stride, sampling_ratio=0, aligned=True
    )
    return pooled.mean((2, 3))


def _padded(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % DIVISOR, 0, -height % DIVISOR)).unsqueeze(0)
