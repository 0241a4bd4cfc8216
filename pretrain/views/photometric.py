"""Photometric augmentation and normalisation of a batch, on the batch's device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD

from ..settings import ViewSettings
from .colours import (
    Adjustment,
    add_brightness,
    gaussian_blur,
    grey,
    scale_contrast,
    scale_distance_from_grey,
    scale_saturation,
    scale_values,
    shift_hue,
)
from .geometry import REFERENCE_SIZE

STRENGTHS = (0.4, 0.4, 0.2, 0.1)
"""Half widths of the ranges of brightness, contrast, saturation and hue (CCOP's `configs/selfsup/ccop/r50_d2.py`)."""

CENTRES = (1.0, 1.0, 1.0, 0.0)
"""Centres of the ranges of brightness, contrast, saturation and hue, at which they change nothing."""

JITTERED, GREY, BLURRED = 0.8, 0.2, 0.5
"""Probabilities of the colour jitter, of greyscale and of the blur (same source)."""

SIGMAS = (0.1, 2.0)
"""Range of the blur's standard deviation, in pixels (same source)."""

SMALLEST_KERNEL = 3
"""Minimum side of a scaled kernel, in pixels; a kernel of side 1 would not blur."""

ADJUSTMENTS: dict[str, tuple[Adjustment, Adjustment, Adjustment, Adjustment]] = {
    "additive": (add_brightness, scale_values, scale_saturation, shift_hue),
    "multiplicative": (scale_values, scale_contrast, scale_distance_from_grey, shift_hue),
}
"""Adjustments of brightness, contrast, saturation and hue, by `colour_jitter`."""


@dataclass(frozen=True)
class PhotometricDraws:
    """Random draws for B images, on their device.

    Attributes:
        factors: (4, B) brightness, contrast, saturation, hue.
        order: order of the four adjustments, the same for all images of a batch, as in Kornia.
        jittered: (B,) bool, whose colours are adjusted.
        grey: (B,) bool, which become grey.
        blurred: (B,) bool, which are blurred.
        sigma: (B,) standard deviations of the blur in pixels.
    """

    factors: Tensor
    order: list[int]
    jittered: Tensor
    grey: Tensor
    blurred: Tensor
    sigma: Tensor


class PhotometricAugmentation(nn.Module):
    """Colour jitter, greyscale and blur on values in 0..1, drawn for each image, then normalisation.

    All draws come from torch's global generators, of the images' device for what differs between images. Nothing waits
    for the device.

    Args:
        settings: strengths of the augmentations and size of the images.
    """

    mean: Tensor
    std: Tensor
    centres: Tensor
    widths: Tensor

    def __init__(self, settings: ViewSettings) -> None:
        super().__init__()
        self.adjustments = ADJUSTMENTS[settings.colour_jitter]
        self.kernel, self.sigmas = blur(settings)
        widths = [2 * strength * settings.jitter_strength for strength in STRENGTHS]
        for name, values in (
            ("centres", torch.tensor(CENTRES).view(4, 1)),
            ("widths", torch.tensor(widths).view(4, 1)),
            ("mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1) / 255),
            ("std", torch.tensor(PIXEL_STD).view(3, 1, 1) / 255),
        ):
            self.register_buffer(name, values, persistent=False)

    def draw(self, count: int) -> PhotometricDraws:
        """Draw the parameters of `count` images, on the module's device."""
        uniform = torch.rand(8, count, device=self.centres.device)
        low, high = self.sigmas
        return PhotometricDraws(
            factors=self.centres + self.widths * (uniform[:4] - 0.5),
            order=torch.randperm(4).tolist(),
            jittered=uniform[4] < JITTERED,
            grey=uniform[5] < GREY,
            blurred=uniform[6] < BLURRED,
            sigma=low + (high - low) * uniform[7],
        )

    @torch.no_grad()
    def augment(self, images: Tensor, draws: PhotometricDraws | None = None) -> Tensor:
        """Augment without normalising: (B, 3, H, W) uint8 RGB -> (B, 3, H, W) float32 in 0..1."""
        draws = draws or self.draw(len(images))
        images = images.float().div_(255)
        adjusted = images
        for index in draws.order:
            adjusted = self.adjustments[index](adjusted, draws.factors[index])
        images = torch.where(draws.jittered.view(-1, 1, 1, 1), adjusted, images)
        images = torch.where(draws.grey.view(-1, 1, 1, 1), grey(images), images)
        if self.kernel > 1:
            images = gaussian_blur(images, draws.sigma, draws.blurred, self.kernel)
        return images.clamp_(0, 1)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Augment, then normalise with the hub's mean and std: (B, 3, H, W) uint8 RGB -> (B, 3, H, W) float32."""
        return self.augment(images).sub_(self.mean).div_(self.std)


def blur(settings: ViewSettings) -> tuple[int, tuple[float, float]]:
    """Return the blur's kernel size and the range of its standard deviation, in pixels."""
    if not settings.scale_blur:
        return settings.blur_kernel, SIGMAS
    scale = settings.image_size / REFERENCE_SIZE
    side = 2 * round((settings.blur_kernel * scale - 1) / 2) + 1
    return max(side, min(SMALLEST_KERNEL, settings.blur_kernel)), (SIGMAS[0] * scale, SIGMAS[1] * scale)
