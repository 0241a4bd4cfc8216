"""Training metrics other than the losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..common.transfer import to_device
from .boxes import full_precision
from .curriculum import BoxNoise

ROWS_AT_ONCE = 1024
"""Number of queries compared with the batch's keys at once, which bounds memory with thousands of boxes."""


def embedding_std(embeddings: Tensor) -> Tensor:
    """Standard deviation of (N, D) embeddings, averaged over D: 0 if collapsed, 1/sqrt(D) if uniform on the sphere."""
    return embeddings.std(dim=0, correction=0).mean() if len(embeddings) else embeddings.new_zeros(())


@torch.no_grad()
def batch_accuracy(queries: Tensor, keys: Tensor, images: Tensor) -> Tensor:
    """Fraction of queries that are more similar to their own key than to any key of another image in the batch.

    All keys in a batch come from the same key encoder at the same step, so a query can only be matched by image
    content. Keys of the same image are ignored, since its boxes may overlap.

    Args:
        queries: (N, D) unit vectors; N may be 0.
        keys: (N, D) unit vectors, the positives in the same order.
        images: (N,) long, image index of each row.

    Returns:
        0-d float32, 0 if N is 0. A query counts as correct if the batch has no other image.
    """
    queries, keys = full_precision(queries), full_precision(keys)
    correct = torch.zeros((), dtype=torch.long, device=queries.device)
    if not len(queries):
        return correct.float()
    for start in range(0, len(queries), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        own = (queries[rows] * keys[rows]).sum(1)
        others = (queries[rows] @ keys.T).masked_fill(images[rows].unsqueeze(1) == images, -torch.inf)
        correct += (own > others.amax(1)).sum()
    return correct / len(queries)


@torch.no_grad()
def similarity_monitors(queries: Tensor, keys: Tensor, queue: Tensor | None) -> dict[str, Tensor]:
    """Compute the mean cosine similarities of a batch's queries, without building the pairwise matrix.

    Args:
        queries: (N, D) unit vectors; N may be 0.
        keys: (N, D) unit vectors, the positives in the same order.
        queue: (K, D) unit vectors that the queries were contrasted with; None without a queue.

    Returns:
        0-d tensors: `positive_similarity` to each query's own key, `batch_similarity` to the other keys in the batch (0
        if there are none), `queue_similarity` to the queue.
    """
    queries, keys = full_precision(queries), full_precision(keys)
    count = max(len(queries), 1)
    own = (queries * keys).sum()
    figures = {
        "positive_similarity": own / count,
        "batch_similarity": (queries.sum(0) @ keys.sum(0) - own) / max(count * (count - 1), 1),
    }
    if queue is not None:
        figures["queue_similarity"] = queries.sum(0) @ full_precision(queue).mean(0) / count
    return figures


def image_of_rows(counts: Sequence[int], device: torch.device) -> Tensor:
    """Return the image index of each row, (sum of counts,) long, given `counts[i]` rows for image i."""
    return to_device(torch.repeat_interleave(torch.tensor(list(counts), dtype=torch.long)), device)


def jitter_monitors(valid: Tensor, noise: BoxNoise) -> dict[str, Tensor]:
    """Compute the share of valid jitters, and report the curriculum's current values.

    Args:
        valid: (N, J + 1) bool; the last column (the boxes themselves) is ignored.
        noise: noise of this step.
    """
    jitters = valid[:, :-1]
    return {
        "valid_jitters": jitters.sum() / max(jitters.numel(), 1),
        "iou_threshold": noise.iou_threshold,
        "centre_magnitude": noise.centre_magnitude,
        "size_magnitude": noise.size_magnitude,
    }
