"""Box geometry. Boxes are xyxy in absolute pixels of the view, float32 whatever the network's precision."""

from __future__ import annotations

import torch
from torch import Tensor


def box_areas(boxes: Tensor) -> Tensor:
    """Areas in square pixels: (..., 4) xyxy in, (...) out. A box whose sides are negative has area 0."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0)
    return sides[..., 0] * sides[..., 1]


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every box with every other box, batch by batch.

    `torchvision.ops.box_iou` with leading batch dimensions, and 0 where both boxes are empty.

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
