"""RoIAlign features of boxes, from the feature pyramid or the backbone stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms.functional import pil_to_tensor

from ccop_hub.box_features import padded, pyramid_features, stage_features
from ccop_hub.frozen_network import FrozenNetwork
from ccop_hub.readers import Reader

from ..common.compute import readable
from ..common.images import read_rgb
from .coco_boxes import BoxedImages

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
        loader = Reader(Subset(images, items), batch_size=None, num_workers=workers)
        for image, boxes in readable(loader):
            pixels, regions = fabric.to_device(image), fabric.to_device(boxes)
            with torch.no_grad(), fabric.autocast():
                yield pool(network, padded(pixels), regions).float().cpu()

    return compute
