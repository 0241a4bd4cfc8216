"""Colour and blur operations on a batch, each image with its own parameters, without waiting for a GPU.

Images are (B, 3, H, W) float RGB in 0..1, parameters (B,). The additive variants are those of Kornia's `ColorJiggle`
(`ColorJitter` in the 2021 version that CCOP's authors used), the multiplicative ones those of torchvision's
`ColorJitter`; hue is the same in both. Kornia itself is not used, since its batches wait for the device to read
parameters and convert to HSV and back twice.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey image (ITU-R BT.601)."""

Adjustment = Callable[[Tensor, Tensor], Tensor]
"""Maps images and one factor per image to images."""


def grey(images: Tensor) -> Tensor:
    """Compute the luminance, (B, 3, H, W) -> (B, 1, H, W)."""
    red, green, blue = images.unbind(1)
    return (LUMINANCE[0] * red).add_(green, alpha=LUMINANCE[1]).add_(blue, alpha=LUMINANCE[2]).unsqueeze(1)


def add_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Add `factor` - 1 to every value."""
    return (images + (_per_image(factor) - 1)).clamp_(0, 1)


def scale_values(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply every value by `factor`: the additive variant's contrast, and the multiplicative one's brightness."""
    return (images * _per_image(factor)).clamp_(0, 1)


def scale_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from the mean luminance of the image by `factor`."""
    return torch.lerp(grey(images).mean((2, 3), keepdim=True), images, _per_image(factor)).clamp_(0, 1)


def scale_distance_from_grey(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from the luminance of each pixel by `factor`."""
    return torch.lerp(grey(images), images, _per_image(factor)).clamp_(0, 1)


def scale_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the saturation in HSV by `factor`, to at most 1, with the same hue and value."""
    value = images.amax(1, keepdim=True)
    spread = value - images.amin(1, keepdim=True)
    # Saturation is spread / value, so value / spread is the largest factor for a pixel.
    largest = value / spread.clamp_min_(torch.finfo(images.dtype).tiny)
    return torch.lerp(value, images, torch.minimum(largest, _per_image(factor)))


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Shift the hue in HSV by `turns` of the colour circle, with the same saturation and value."""
    value = images.amax(1)
    spread = value - images.amin(1)
    red, green, blue = images.unbind(1)
    is_red, is_green = red == value, green == value
    difference = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
    hue = difference.div_(spread.clamp_min(torch.finfo(images.dtype).tiny))
    hue += torch.where(is_red, 0.0, torch.where(is_green, 2.0, 4.0)) + 6 * turns.view(-1, 1, 1)
    # In sextants, a channel falls from `value` by up to `spread` around its complement.
    channel = torch.stack([hue + 5, hue + 3, hue + 1], dim=1).remainder_(6)
    fall = torch.minimum(channel, 4 - channel).clamp_(0, 1)
    return torch.addcmul(value.unsqueeze(1), spread.unsqueeze(1), fall, value=-1)


def gaussian_blur(images: Tensor, sigma: Tensor, blurred: Tensor, kernel: int) -> Tensor:
    """Blur some images with a Gaussian kernel, reflecting at the borders.

    Args:
        images: (B, 3, H, W).
        sigma: (B,) standard deviations in pixels, above 0.
        blurred: (B,) bool, which images to blur; the others get a kernel that changes nothing.
        kernel: side of the kernel in pixels, odd.
    """
    radius = kernel // 2
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (offsets / sigma.unsqueeze(1)) ** 2)
    weights = torch.where(blurred.unsqueeze(1), weights / weights.sum(1, keepdim=True), (offsets == 0).to(weights))
    # One channel of a single image for each channel of each image, since the kernels differ between images.
    count, channels, height, width = images.shape
    weights = weights.repeat_interleave(channels, dim=0)
    pixels = images.reshape(1, count * channels, height, width)
    along_x = conv2d(pad(pixels, (radius, radius, 0, 0), "reflect"), weights[:, None, None], groups=len(weights))
    along_y = conv2d(pad(along_x, (0, 0, radius, radius), "reflect"), weights[:, None, :, None], groups=len(weights))
    return along_y.view_as(images)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
