"""Figures that show how training is going, beside the losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .curriculum import BoxNoise
from .losses import full_precision

ROWS_AT_ONCE = 1024
"""Queries compared with the keys of their batch at a time, which bounds the memory for thousands of boxes."""


def embedding_std(embeddings: Tensor) -> Tensor:
    """Standard deviation over (N, D) embeddings, averaged over D: 0 for a collapse, 1/sqrt(D) on a uniform sphere."""
    return embeddings.std(dim=0, correction=0).mean() if len(embeddings) else embeddings.new_zeros(())


@torch.no_grad()
def batch_accuracy(queries: Tensor, keys: Tensor, images: Tensor) -> Tensor:
    """Share of queries that are more similar to their own key than to every key of another image of the batch.

    All keys of a batch have the same age and come from the same key encoder, so neither helps: only what the
    images show does. Keys of the same image are left out, since boxes of one image may overlap.

    Args:
        queries: (N, D) unit vectors; N may be 0.
        keys: (N, D) unit vectors, the positives in the same order.
        images: (N,) long, the image of each row.

    Returns:
        0-d float32; 0 where N is 0. A query without a key of another image counts as right.
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
    """Mean cosine similarities of the queries of a batch; no matrix of all pairs is made.

    Args:
        queries: (N, D) unit vectors; N may be 0.
        keys: (N, D) unit vectors, the positives in the same order.
        queue: (K, D) unit vectors, as the queries met them; None without a queue.

    Returns:
        0-d each: `positive_similarity` to the own key, `batch_similarity` to the other keys of the batch (0 where there
        are none), `queue_similarity` to the queue.
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
    """(sum of counts,) long: which image each row belongs to, where image i has `counts[i]` rows."""
    return torch.repeat_interleave(torch.tensor(list(counts), dtype=torch.long)).to(device)


def jitter_monitors(valid: Tensor, noise: BoxNoise) -> dict[str, Tensor]:
    """Share of valid jitters and the values of the curriculum.

    Args:
        valid: (N, J + 1) bool; the last column, the boxes themselves, does not count.
        noise: of the step.
    """
    jitters = valid[:, :-1]
    return {
        "valid_jitters": jitters.sum() / max(jitters.numel(), 1),
        "iou_threshold": noise.iou_threshold,
        "centre_magnitude": noise.centre_magnitude,
        "size_magnitude": noise.size_magnitude,
    }
