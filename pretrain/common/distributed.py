"""Communication between processes. With a single process, every function is the identity and draws nothing.

The exception is `BatchShuffle`, which can optionally shuffle the images of a single process.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether `flag` is true in any process; `device` is the device used by the group's collectives."""
    return flag if world_size() == 1 else bool(gather_rows(torch.tensor([flag], device=device)).any())


@torch.no_grad()
def gather_rows(rows: Tensor) -> Tensor:
    """Gather the rows of all processes in rank order, without gradient.

    Args:
        rows: (N, ...); N may be 0 and may differ between processes, but the other dimensions must not.

    Returns:
        (sum of N, ...).
    """
    if world_size() == 1:
        return rows
    lengths = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world_size())]
    dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
    counts = [int(length) for length in lengths]
    # Gloo only gathers equal shapes, so pad the shorter parts.
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class BatchShuffle:
    """Shuffles images between processes, so that batch norm statistics do not reveal a query's key (ShuffleBN).

    MoCo (arXiv 1911.05722, section 3.3) reverses the permutation on the embeddings. The CCOP authors also gather p2 to
    p5, to pool each box in its original process. Here, boxes move with their images and only embeddings are sent back,
    which gives the same numbers without sending feature maps.

    Every process draws a permutation from torch's global generator, to keep the generators in sync, but only rank 0's
    is used.

    Args:
        images: number of images of this process; may differ between processes.
        device: device used by the process group's collectives.
        alone: whether to shuffle even if there is only one process; if False, a single process draws nothing.
    """

    def __init__(self, images: int, device: torch.device, alone: bool = False) -> None:
        self._mine: list[int] = []
        self._seen: list[int] = []
        if world_size() == 1 and not alone:
            return
        sizes: list[int] = gather_rows(torch.tensor([images], device=device)).tolist()
        permutation = torch.randperm(sum(sizes)).to(device)
        if world_size() > 1:
            dist.broadcast(permutation, src=0)
        start = sum(sizes[: rank()])
        self._seen = permutation[start : start + images].tolist()
        self._mine = permutation.argsort()[start : start + images].tolist()

    def shuffle(self, rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Exchange the rows of this process's images for those of the images that it will embed.

        Args:
            rows: (M, ...), image by image.
            counts: number of rows of each image, M in total.

        Returns:
            Rows and counts of the same number of images, permuted.
        """
        return _exchange(rows, counts, self._seen)

    def restore(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Undo `shuffle` on its output, or on other rows with the same counts."""
        return _exchange(rows, counts, self._mine)[0]


def _exchange(rows: Tensor, counts: Sequence[int], wanted: list[int]) -> tuple[Tensor, list[int]]:
    if world_size() == 1 and not wanted:
        return rows, list(counts)
    all_counts: list[int] = gather_rows(torch.tensor(counts, dtype=torch.long, device=rows.device)).tolist()
    parts = torch.split(gather_rows(rows), all_counts)
    return torch.cat([parts[image] for image in wanted]), [all_counts[image] for image in wanted]
