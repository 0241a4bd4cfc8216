"""Figures that show how training is going, beside the losses."""

from __future__ import annotations

from torch import Tensor

from .curriculum import BoxNoise


def embedding_std(embeddings: Tensor) -> Tensor:
    """Standard deviation over (N, D) embeddings, averaged over D: 0 for a collapse, 1/sqrt(D) on a uniform sphere."""
    return embeddings.std(dim=0, correction=0).mean() if len(embeddings) else embeddings.new_zeros(())


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
