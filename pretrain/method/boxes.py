"""Box geometry. Boxes are xyxy in absolute pixels of the view, always float32, even under autocast."""

from __future__ import annotations

import torch
from torch import Tensor


def box_areas(boxes: Tensor) -> Tensor:
    """Compute box areas in square pixels: (..., 4) xyxy -> (...). A negative side counts as 0."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0)
    return sides[..., 0] * sides[..., 1]


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Compute the pairwise intersection over union of two sets of boxes.

    Like `torchvision.ops.box_iou`, but accepts leading batch dimensions and returns 0 where both boxes are empty.

    Args:
        boxes: (..., N, 4) float32 xyxy.
        others: (..., M, 4) float32 xyxy, same leading dimensions (or broadcastable).

    Returns:
        (..., N, M) float32 in 0..1.
    """
    boxes, others = boxes.float().unsqueeze(-2), others.float().unsqueeze(-3)
    overlap = box_areas(
        torch.cat([torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])], -1)
    )
    union = box_areas(boxes) + box_areas(others) - overlap
    return torch.where(union > 0, overlap / union, 0)


def full_precision(values: Tensor) -> Tensor:
    """Cast to float32, leaving float64 unchanged."""
    return values if values.dtype == torch.float64 else values.float()
