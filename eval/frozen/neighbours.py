"""Nearest neighbours by cosine similarity, and weighted voting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_BLOCK, BANK_BLOCK = 512, 65536
"""Query and bank rows per comparison block, small enough for a device with little memory."""


def nearest_neighbours(
    bank: np.ndarray,
    queries: np.ndarray,
    k: int,
    device: torch.device,
    prepare: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> tuple[Tensor, Tensor]:
    """Find the k bank rows with the highest cosine similarity to each query, highest first.

    Works block by block, so neither array has to fit in memory.

    Args:
        bank: (M, D) float32.
        queries: (N, D) float32.
        k: number of neighbours, at most M.
        device: device to compute on.
        prepare: applied to the rows of both arrays first, block by block.

    Returns:
        (N, k) similarities and (N, k) bank indices, on the CPU.
    """
    similarities, indices = [], []
    for start in range(0, len(queries), QUERY_BLOCK):
        block = _unit(prepare(queries[start : start + QUERY_BLOCK]), device)
        best = torch.empty(len(block), 0, device=device)
        index = torch.empty(len(block), 0, dtype=torch.int64, device=device)
        for first in range(0, len(bank), BANK_BLOCK):
            values = block @ _unit(prepare(bank[first : first + BANK_BLOCK]), device).T
            top = values.topk(min(k, values.shape[1]), dim=1)
            best, index = torch.cat([best, top.values], 1), torch.cat([index, top.indices + first], 1)
            kept = best.topk(min(k, best.shape[1]), dim=1)
            best, index = kept.values, index.gather(1, kept.indices)
        similarities.append(best.cpu())
        indices.append(index.cpu())
    if not similarities:
        return torch.empty(0, k), torch.empty(0, k, dtype=torch.int64)
    return torch.cat(similarities), torch.cat(indices)


def class_votes(similarity: Tensor, index: Tensor, labels: Sequence[int], k: int, temperature: float) -> Tensor:
    """Class votes of the k nearest neighbours, each weighted by exp(similarity / temperature): (N, classes) float64.

    Args:
        similarity: (N, K) similarities, K >= k, highest first.
        index: (N, K) bank rows.
        labels: class index of each bank row.
        k: number of voting neighbours.
        temperature: temperature of the vote weights.
    """
    classes = torch.tensor(labels)
    # Subtracting the highest similarity prevents overflow at small temperatures.
    weights = ((similarity[:, :k] - similarity[:, :1]).double() / temperature).exp()
    votes = torch.zeros(len(index), int(classes.max()) + 1, dtype=torch.float64)
    return votes.scatter_add_(1, classes[index[:, :k]], weights)


def true_class_rank(
    similarity: Tensor, index: Tensor, labels: Sequence[int], truth: Sequence[int], k: int, temperature: float
) -> Tensor:
    """Rank of the true class by votes, from 0: (N,) int64; the number of classes if it has no votes."""
    votes = class_votes(similarity, index, labels, k, temperature)
    own = votes.gather(1, torch.tensor(truth, dtype=torch.int64).unsqueeze(1))
    higher = (votes > own).sum(1)
    return torch.where(own.squeeze(1) > 0, higher, votes.shape[1])


def _unit(rows: np.ndarray, device: torch.device) -> Tensor:
    return F.normalize(torch.from_numpy(np.array(rows, dtype=np.float32)).to(device), dim=1)
