"""The CCOP losses (arXiv 2111.13651) and hard-positive selection.

Similarities and losses are computed in float32 (float64 for float64 embeddings), even under autocast. If a batch has
nothing to compare, the loss is exactly 0 but stays connected to its inputs with zero gradients, so that a process
without boxes can still take part in the gradient all-reduce.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..common.transfer import to_device
from .boxes import box_iou, full_precision


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
        # Dividing the queries rather than the logits saves a pass over the largest tensor of a step. The other passes
        # change that tensor in place, rather than append a column to it for `cross_entropy`.
        queries = queries / temperature
        positive = (queries * positives).sum(1)
        if not len(negatives):
            return (positive - positive).sum(), torch.ones_like(positive.detach()).sum() / max(total, 1)
        similarity = queries @ negatives.T
        if left_out is not None:
            similarity.masked_fill_(left_out, -torch.inf)
        nearest = similarity.detach().amax(1)
        largest = positive.detach().maximum(nearest)
        others = similarity.sub_(largest.unsqueeze(1)).exp_().sum(1)
        positive_part = positive - largest
        loss = ((positive_part.exp() + others).log() - positive_part).sum() / max(total, 1)
        return loss, (positive.detach() > nearest).sum() / max(total, 1)


@dataclass(frozen=True)
class ImagePairs:
    """Pairs of boxes within each of B images, padded to n boxes per image.

    Attributes:
        rows: (B * n,) long, row of each box among all N boxes; N where an image has fewer than n.
        different: (B, n, n) bool, the pairs of different objects.
        count: number of pairs of different objects.
    """

    rows: Tensor
    different: Tensor
    count: int

    def to(self, device: torch.device) -> ImagePairs:
        """Copy to a device, without waiting for it."""
        return ImagePairs(to_device(self.rows, device), to_device(self.different, device), self.count)


def image_pairs(key_boxes: Sequence[Tensor], iou_limit: float) -> ImagePairs:
    """Find the pairs of different objects within each image: those whose key boxes have an IoU below `iou_limit`.

    Args:
        key_boxes: one (n_i, 4) float32 xyxy tensor per image, on the CPU.
        iou_limit: IoU in 0..1.
    """
    different = different_objects(key_boxes, iou_limit)
    counts = torch.tensor([len(rows) for rows in key_boxes])
    places = torch.arange(different.shape[1])
    rows = (counts.cumsum(0) - counts).unsqueeze(1) + places
    rows = torch.where(places < counts.unsqueeze(1), rows, int(counts.sum()))
    return ImagePairs(rows.flatten(), different, int(different.sum()))


def intra_image_hinge(
    queries: Tensor, keys: Tensor, pairs: ImagePairs, margin: float, total: int | None = None
) -> Tensor:
    """Contrast objects within an image: the mean of relu(q_i k_j - q_j k_j + margin) over pairs of different objects.

    Key j is the anchor. The mean is over the pairs of all images together.

    Args:
        queries: (N, D) unit vectors of the query boxes, image by image.
        keys: (N, D) unit vectors of the unjittered key boxes, in the same order.
        pairs: the pairs (i, j), on the same device.
        margin: hinge margin, in cosine similarity.
        total: number of pairs in the full batch, if this is only part of it; the results of all parts then add up to
            the result for the full batch.

    Returns:
        0-d loss.
    """
    with torch.autocast(queries.device.type, enabled=False):
        images, most, _ = pairs.different.shape
        by_image, keys_by_image = (
            torch.cat([full_precision(rows), rows.new_zeros(1, rows.shape[1], dtype=full_precision(rows).dtype)])
            .index_select(0, pairs.rows)
            .view(images, most, rows.shape[1])
            for rows in (queries, keys)
        )
        similarity = by_image @ keys_by_image.transpose(1, 2)
        hinge = (similarity - similarity.diagonal(dim1=1, dim2=2).unsqueeze(1) + margin).relu()
        return (hinge * pairs.different).sum() / max(pairs.count if total is None else total, 1)


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
    per_image = torch.zeros(len(counts), dtype=torch.long)
    image = torch.repeat_interleave(torch.tensor(list(counts), dtype=torch.long), output_size=len(valid))
    totals: list[int] = per_image.index_add_(0, image, valid.sum(1)).tolist()
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
        # The shapes must not depend on `valid`, whose content the host does not see.
        each = full_precision(embeddings.detach())[candidate_rows(valid).clamp_min(0)]
        similarity = (full_precision(queries.detach()).unsqueeze(1) * each).sum(2)
        return similarity.masked_fill(~valid, torch.inf).argmin(1)
