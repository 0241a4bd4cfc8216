"""The only module that speaks to other processes; at world size 1 every function is the identity and draws nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes, 1 where none were joined."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process, 0 where none were joined."""
    return dist.get_rank() if world_size() > 1 else 0


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether any process says so; `device` is where the collectives of the process group take their tensors."""
    return flag if world_size() == 1 else bool(gather_rows(torch.tensor([flag], device=device)).any())


@torch.no_grad()
def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes in the order of their ranks, the same on each, without gradient.

    Args:
        rows: (N, ...); N may differ between processes and be 0, the rest may not.

    Returns:
        (sum of N, ...).
    """
    if world_size() == 1:
        return rows
    lengths = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world_size())]
    dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
    counts = [int(length) for length in lengths]
    # Gloo gathers equal shapes alone, so that shorter parts travel padded.
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class BatchShuffle:
    """One permutation of the images of all processes, so that BN statistics do not tell a query's key (ShuffleBN).

    MoCo (arXiv 1911.05722, section 3.3) undoes the permutation on the embeddings; the authors of CCOP gather p2 to p5
    as well, to pool boxes at home. Here the boxes follow their images and only embeddings come back: the same numbers
    without sending feature maps.

    Every process draws a permutation from torch's global generator, so that their generators stay in step; rank 0's is
    used.

    Args:
        images: images of this process; may differ between processes.
        device: where the collectives of the process group take their tensors.
    """

    def __init__(self, images: int, device: torch.device) -> None:
        self._mine: list[int] = []
        self._seen: list[int] = []
        if world_size() == 1:
            return
        sizes: list[int] = gather_rows(torch.tensor([images], device=device)).tolist()
        permutation = torch.randperm(sum(sizes)).to(device)
        dist.broadcast(permutation, src=0)
        start = sum(sizes[: rank()])
        self._seen = permutation[start : start + images].tolist()
        self._mine = permutation.argsort()[start : start + images].tolist()

    def shuffle(self, rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Trade own images' rows for those of the images that this process embeds.

        Args:
            rows: (M, ...) image by image.
            counts: rows of each image; they add up to M.

        Returns:
            Rows and counts of as many images, permuted.
        """
        return _exchange(rows, counts, self._seen)

    def restore(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Undo `shuffle`: take what it returned (or anything with the same counts), give own images' rows back."""
        return _exchange(rows, counts, self._mine)[0]


def _exchange(rows: Tensor, counts: Sequence[int], wanted: list[int]) -> tuple[Tensor, list[int]]:
    if world_size() == 1:
        return rows, list(counts)
    all_counts: list[int] = gather_rows(torch.tensor(counts, dtype=torch.long, device=rows.device)).tolist()
    parts = torch.split(gather_rows(rows), all_counts)
    return torch.cat([parts[image] for image in wanted]), [all_counts[image] for image in wanted]
