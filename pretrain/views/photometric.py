"""Photometric augmentation and normalisation of a batch, on the batch's device."""

from __future__ import annotations

import kornia.augmentation as augment
import torch
from torch import Tensor, nn

from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD

from ..settings import ViewSettings
from .geometry import REFERENCE_SIZE

SIGMAS = (0.1, 2.0)
"""Range of the blur's standard deviation, in pixels (CCOP's `configs/selfsup/ccop/r50_d2.py`)."""

SMALLEST_KERNEL = 3
"""Minimum side of a scaled kernel, in pixels; a kernel of side 1 would not blur."""


class PhotometricAugmentation(nn.Module):
    """Colour jitter, greyscale and blur on values in 0..1, drawn for each image, then normalisation.

    The default colour jitter is Kornia's `ColorJiggle`, called `ColorJitter` in the 2021 version that the authors used.
    It adds brightness, whereas torchvision multiplies; `colour_jitter` selects one of the two. Strengths are from
    CCOP's `configs/selfsup/ccop/r50_d2.py`. All draws come from torch's global generator.

    Args:
        settings: strengths of the augmentations and size of the images.
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
        """Augment without normalising: (B, 3, H, W) uint8 RGB -> (B, 3, H, W) float32 in 0..1."""
        augmented: Tensor = self.augmentation(images.float() / 255)
        return augmented.clamp(0, 1)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Augment, then normalise with the hub's mean and std: (B, 3, H, W) uint8 RGB -> (B, 3, H, W) float32."""
        return (self.augment(images) - self.mean) / self.std


def blur(settings: ViewSettings) -> tuple[int, tuple[float, float]]:
    """Return the blur's kernel size and the range of its standard deviation, in pixels."""
    if not settings.scale_blur:
        return settings.blur_kernel, SIGMAS
    scale = settings.image_size / REFERENCE_SIZE
    side = 2 * round((settings.blur_kernel * scale - 1) / 2) + 1
    return max(side, min(SMALLEST_KERNEL, settings.blur_kernel)), (SIGMAS[0] * scale, SIGMAS[1] * scale)
