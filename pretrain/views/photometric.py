"""Photometric augmentation of a batch on its own device, followed by input normalisation."""

from __future__ import annotations

import kornia.augmentation as augment
import torch
from torch import Tensor, nn

from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD


class PhotometricAugmentation(nn.Module):
    """Colour jitter, greyscale and blur (values in 0..1), then normalisation; each image has its own draws.

    The colour jitter is Kornia's `ColorJiggle`, which the authors' Kornia of 2021 called `ColorJitter`: its brightness
    is added, while torchvision's is multiplied. Strengths: CCOP's `configs/selfsup/ccop/r50_d2.py`.
    All draws come from torch's global generator.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.augmentation = nn.Sequential(
            augment.ColorJiggle(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8),
            augment.RandomGrayscale(p=0.2),
            augment.RandomGaussianBlur(kernel_size=(7, 7), sigma=(0.1, 2.0), p=0.5),
        )
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1) / 255, persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD).view(3, 1, 1) / 255, persistent=False)

    @torch.no_grad()
    def augment(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB -> (B, 3, H, W) float32 in 0..1, augmented but not normalised."""
        augmented: Tensor = self.augmentation(images.float() / 255)
        return augmented.clamp(0, 1)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB -> (B, 3, H, W) float32, augmented, then normalised by the hub's mean and std."""
        return (self.augment(images) - self.mean) / self.std
