"""The CCOP losses (arXiv 2111.13651) and hard-positive selection.

Similarities and losses are computed in float32 (float64 for float64 embeddings), even under autocast. If a batch has
nothing to compare, the loss is exactly 0 but stays connected to its inputs with zero gradients, so that a process
without boxes can still take part in the gradient all-reduce.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from .boxes import box_iou


def info_nce(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    temperature: float,
    total: int | None = None,
    left_out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """InfoNCE: contrast each query with its positive and shared negatives (arXiv 1807.03748, equation 4; 1911.05722).

    Args:
        queries: (N, D) unit vectors; N may be 0.
        positives: (N, D) unit vectors.
        negatives: (K, D) unit vectors; K may be 0.
        temperature: divides the similarities.
        total: number of queries in the full batch, if this is only part of it; the results of all parts then add up to
            the result for the full batch.
        left_out: (N, K) bool mask of negatives to ignore for each query; None uses all.

    Returns:
        The mean loss, and the fraction of queries whose positive is more similar than every negative (detached).
    """
    total = len(queries) if total is None else total
    with torch.autocast(queries.device.type, enabled=False):
        queries, positives, negatives = full_precision(queries), full_precision(positives), full_precision(negatives)
        positive = (queries * positives).sum(1, keepdim=True)
        similarity = queries @ negatives.T
        if left_out is not None:
            similarity = similarity.masked_fill(left_out, -torch.inf)
        logits = torch.cat([positive, similarity], dim=1) / temperature
        target = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
        loss = cross_entropy(logits, target, reduction="sum") / max(total, 1)
        if not len(negatives):
            return loss, torch.ones_like(logits.detach()).sum() / max(total, 1)
        correct = logits.detach()[:, :1] > logits.detach()[:, 1:].amax(1, keepdim=True)
        return loss, correct.sum() / max(total, 1)


def intra_image_hinge(
    queries: Tensor,
    keys: Tensor,
    key_boxes: Sequence[Tensor],
    iou_limit: float,
    margin: float,
    total: Tensor | None = None,
) -> Tensor:
    """Contrast objects within an image: the mean of relu(q_i k_j - q_j k_j + margin) over pairs of different objects.

    A pair (i, j) counts if both KEY boxes are in the same image and their IoU is below `iou_limit`; key j is the
    anchor. The mean is over the pairs of all images together.

    Args:
        queries: (N, D) unit vectors of the query boxes, image by image.
        keys: (N, D) unit vectors of the unjittered key boxes, in the same order.
        key_boxes: one (n_i, 4) float32 xyxy tensor per image, N boxes in total.
        iou_limit: IoU in 0..1.
        margin: hinge margin, in cosine similarity.
        total: 0-d, number of pairs in the full batch, if this is only part of it; the results of all parts then add up
            to the result for the full batch.

    Returns:
        0-d loss.
    """
    with torch.autocast(queries.device.type, enabled=False):
        counts = [len(boxes) for boxes in key_boxes]
        by_image = pad_sequence(list(torch.split(full_precision(queries), counts)), batch_first=True)
        keys_by_image = pad_sequence(list(torch.split(full_precision(keys), counts)), batch_first=True)
        similarity = by_image @ keys_by_image.transpose(1, 2)
        hinge = (similarity - similarity.diagonal(dim1=1, dim2=2).unsqueeze(1) + margin).relu()
        pairs = different_objects(key_boxes, iou_limit)
        return (hinge * pairs).sum() / (pairs.sum() if total is None else total).clamp_min(1)


def different_objects(boxes: Sequence[Tensor], iou_limit: float) -> Tensor:
    """Mark the pairs of boxes within an image that are different objects.

    Args:
        boxes: one (n_i, 4) float32 xyxy tensor for each of the B images.
        iou_limit: boxes with a lower IoU are different objects.

    Returns:
        (B, n, n) bool, where n is the largest n_i; rows and columns past n_i are false.
    """
    padded = pad_sequence(list(boxes), batch_first=True)
    counts = torch.tensor([len(rows) for rows in boxes], device=padded.device)
    real = torch.arange(padded.shape[1], device=padded.device) < counts.unsqueeze(1)
    return (box_iou(padded, padded) < iou_limit) & real.unsqueeze(1) & real.unsqueeze(2)


def candidate_rows(valid: Tensor) -> Tensor:
    """Map each valid candidate to its row in `candidates[valid]`: (N, C) bool -> (N, C) long, undefined elsewhere."""
    return valid.flatten().cumsum(0).view_as(valid) - 1


def candidates_per_image(valid: Tensor, counts: Sequence[int]) -> list[int]:
    """Count the valid candidates in each image, given (N, C) bool for N boxes with `counts[i]` of them in image i."""
    totals: list[int] = torch.stack([part.sum() for part in torch.split(valid, list(counts))]).tolist()
    return totals


def hardest_candidates(queries: Tensor, embeddings: Tensor, valid: Tensor) -> Tensor:
    """Find the valid candidate that is least similar to each query.

    Args:
        queries: (N, D) unit vectors.
        embeddings: (M, D) unit vectors of the valid candidates, in the order of `candidates[valid]`.
        valid: (N, C) bool with M true entries, at least one per row.

    Returns:
        (N,) long, column index into `valid`.
    """
    with torch.autocast(queries.device.type, enabled=False):
        repeated = full_precision(queries.detach()).repeat_interleave(valid.sum(1), dim=0, output_size=len(embeddings))
        similarity = repeated.new_full(valid.shape, torch.inf)
        similarity[valid] = (repeated * full_precision(embeddings.detach())).sum(1)
        return similarity.argmin(1)


def full_precision(values: Tensor) -> Tensor:
    """Cast to float32, leaving float64 unchanged."""
    return values if values.dtype == torch.float64 else values.float()
