"""Jittered copies of key boxes, the candidates for the hard positive (CCOP, arXiv 2111.13651)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import box_iou
from .curriculum import BoxNoise


@dataclass(frozen=True)
class JitterDraws:
    """Uniform float32 draws in [0, 1) for J jitters of N boxes.

    Attributes:
        centre: (N, J, 2), shift of the centre in x and y.
        size: (N, J, 2), change of width and height.
    """

    centre: Tensor
    size: Tensor


@dataclass(frozen=True)
class Candidates:
    """Candidates for the hard positive of each key box: J jitters, followed by the box itself.

    Attributes:
        boxes: (N, J + 1, 4) float32 xyxy pixels.
        valid: (N, J + 1) bool; the last column is always true.
        iou: (N, J + 1) float32, IoU with the box itself.
    """

    boxes: Tensor
    valid: Tensor
    iou: Tensor


def draw_jitters(counts: Sequence[int], jitters: int) -> JitterDraws:
    """Draw jitters from torch's global CPU generator, so that a seed gives the same draws on every device.

    Draws in the same order as the authors' code: for each image, the centres of all its boxes, then their sizes.

    Args:
        counts: number of boxes in each image, N in total.
        jitters: J, the number of jittered copies per box.
    """
    total = sum(counts)
    drawn = torch.rand(2 * total, jitters, 2)
    # An image's rows are all of its centres, then all of its sizes.
    per_image = torch.tensor(list(counts), dtype=torch.long)
    number = torch.repeat_interleave(per_image, per_image, output_size=total)
    before = torch.repeat_interleave(per_image.cumsum(0) - per_image, per_image, output_size=total)
    rows = torch.arange(total) + before
    return JitterDraws(drawn[rows], drawn[rows + number])


def jitter_boxes(boxes: Tensor, draws: JitterDraws, noise: BoxNoise, image_size: tuple[int, int]) -> Tensor:
    """Shift and resize boxes, independently along each axis, and clamp them to the image.

    Args:
        boxes: (N, 4) float32 xyxy pixels.
        draws: J draws per box.
        noise: noise magnitudes of this step.
        image_size: (height, width) in pixels.

    Returns:
        (N, J, 4) float32 xyxy pixels.
    """
    boxes = boxes.float()
    sides = (boxes[:, 2:] - boxes[:, :2]).unsqueeze(1)
    centres = (boxes[:, :2] + boxes[:, 2:]).unsqueeze(1) / 2
    centres = centres + sides * ((draws.centre.to(boxes.device) - 0.5) * noise.centre_magnitude)
    sides = sides * torch.exp((draws.size.to(boxes.device) - 0.5) * noise.size_magnitude)
    height, width = image_size
    limits = boxes.new_tensor([width, height, width, height])
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=-1).clamp_min(0).minimum(limits)


def key_candidates(boxes: Tensor, draws: JitterDraws, noise: BoxNoise, image_size: tuple[int, int]) -> Candidates:
    """Jitter each box, append the box itself, and mark the candidates whose IoU with it reaches the threshold.

    Args:
        boxes: (N, 4) float32 xyxy pixels.
        draws: J draws per box; J may be 0.
        noise: noise magnitudes and IoU threshold of this step.
        image_size: (height, width) in pixels.
    """
    boxes = boxes.float().unsqueeze(1)
    candidates = torch.cat([jitter_boxes(boxes[:, 0], draws, noise, image_size), boxes], dim=1)
    iou = box_iou(boxes, candidates).squeeze(1)
    valid = iou >= noise.iou_threshold
    valid[:, -1] = True
    return Candidates(candidates, valid, iou)
