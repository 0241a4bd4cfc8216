"""Photometric augmentation of a batch on its own device, followed by input normalisation."""

from __future__ import annotations

import kornia.augmentation as augment
import torch
from torch import Tensor, nn

from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD

from ..settings import ViewSettings
from .geometry import REFERENCE_SIZE

SIGMAS = (0.1, 2.0)
"""Smallest and largest standard deviation of the blur in pixels (CCOP's `configs/selfsup/ccop/r50_d2.py`)."""

SMALLEST_KERNEL = 3
"""Side in pixels below which a kernel is not scaled, since a kernel of 1 blurs nothing."""


class PhotometricAugmentation(nn.Module):
    """Colour jitter, greyscale and blur (values in 0..1), then normalisation; each image has its own draws.

    The colour jitter is Kornia's `ColorJiggle`, which the authors' Kornia of 2021 called `ColorJitter`: its brightness
    is added, while torchvision's is multiplied (`colour_jitter` chooses). Strengths: CCOP's
    `configs/selfsup/ccop/r50_d2.py`. All draws come from torch's global generator.

    Args:
        settings: colours, blur, and the size of the images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: ViewSettings) -> None:
        super().__init__()
        jitter = augment.ColorJiggle if settings.colour_jitter == "additive" else augment.ColorJitter
        brightness, contrast, saturation, hue = (value * settings.jitter_strength for value in (0.4, 0.4, 0.2, 0.1))
        kernel, sigma = blur(settings)
        self.augmentation = nn.Sequential(
            jitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, p=0.8),
            augment.RandomGrayscale(p=0.2),
            augment.RandomGaussianBlur(kernel_size=(kernel, kernel), sigma=sigma, p=0.5),
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


def blur(settings: ViewSettings) -> tuple[int, tuple[float, float]]:
    """Side of the blur's kernel and range of its standard deviation, both in pixels."""
    if not settings.scale_blur:
        return settings.blur_kernel, SIGMAS
    scale = settings.image_size / REFERENCE_SIZE
    side = 2 * round((settings.blur_kernel * scale - 1) / 2) + 1
    return max(side, min(SMALLEST_KERNEL, settings.blur_kernel)), (SIGMAS[0] * scale, SIGMAS[1] * scale)
