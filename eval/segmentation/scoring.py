"""Sliding-window prediction and IoU metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from ..results.intervals import Statistic
from ..results.result import Metrics, defined
from .label_table import IGNORED


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Start positions of the windows that cover `length` pixels; the last window ends at the border."""
    if length <= window:
        return [0]
    steps = -(-(length - window) // stride)
    return [min(step * stride, length - window) for step in range(steps + 1)]


@torch.no_grad()
def sliding_logits(network: Callable[[Tensor], Tensor], image: Tensor, window: int, stride: int) -> Tensor:
    """Predict in sliding windows, averaging logits where windows overlap.

    Args:
        network: (1, 3, h, w) -> (1, classes, h, w) logits.
        image: (1, 3, H, W).
        window: side of the window, in pixels.
        stride: stride of the window, in pixels; 0 predicts the whole image at once.

    Returns:
        (1, classes, H, W) logits.
    """
    height, width = image.shape[-2:]
    if stride == 0:
        return network(image)
    total: Tensor | None = None
    covered = torch.zeros(1, 1, height, width, device=image.device)
    for top in window_starts(height, window, stride):
        for left in window_starts(width, window, stride):
            rows, columns = slice(top, min(top + window, height)), slice(left, min(left + window, width))
            logits = network(image[..., rows, columns])
            if total is None:
                total = logits.new_zeros(1, logits.shape[1], height, width)
            total[..., rows, columns] += logits
            covered[..., rows, columns] += 1
    assert total is not None
    return total / covered


def class_map(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (1, classes, h, w) logits to the label's `size` (height, width); returns (H, W) int64 class indices."""
    if tuple(logits.shape[-2:]) != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=True)
    return logits.argmax(1)[0]


def confusion(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Confusion matrix: pixel counts by (true, predicted) class, (classes, classes) int64, without ignored pixels."""
    counts = multiclass_confusion_matrix(
        predicted.flatten(), truth.flatten(), classes, ignore_index=IGNORED, validate_args=False
    )
    return counts.long()


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """IoU of each class, (classes,) in percent; NaN for a class that is neither present nor predicted."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - hits
    iou: np.ndarray = np.divide(100 * hits, union, out=np.full(len(hits), np.nan), where=union > 0)
    return iou


def segmentation_metrics(matrix: np.ndarray) -> dict[str, float]:
    """Compute `mIoU` (mean of all defined IoUs) and `pixel_accuracy`, in percent, from a confusion matrix."""
    iou = class_iou(matrix)
    total = matrix.sum()
    return {
        "mIoU": float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan"),
        "pixel_accuracy": float(100 * np.diag(matrix).sum() / total) if total else float("nan"),
    }


def matrix_statistic(matrices: np.ndarray) -> Statistic:
    """Make a statistic: the metrics of the confusion matrix summed over resampled images.

    Args:
        matrices: (images, classes, classes) int64, one confusion matrix per image.
    """

    def statistic(counts: np.ndarray) -> dict[str, float]:
        return segmentation_metrics(np.tensordot(counts, matrices, axes=1))

    return statistic


def per_class_iou(matrix: np.ndarray, classes: Sequence[str]) -> Metrics:
    """IoU by class name, in percent; None if undefined."""
    return defined(dict(zip(classes, class_iou(matrix).tolist(), strict=True)))
