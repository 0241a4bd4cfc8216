"""Communication between processes. With a single process, every function is the identity and draws nothing.

The exception is `BatchShuffle`, which can optionally shuffle the images of a single process.

Collectives run on the device of the process group. Numbers that decide shapes travel in as few of them as possible,
since the host must wait for the device to read them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from .transfer import to_device


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def any_process(flag: bool | Tensor, device: torch.device) -> bool:
    """Return whether `flag` is true in any process; waits for the device once.

    Args:
        flag: a bool, or a 0-d bool tensor on `device`.
        device: device used by the group's collectives.
    """
    if world_size() == 1:
        return bool(flag)
    flags = flag.int() if isinstance(flag, Tensor) else torch.full((), int(flag), dtype=torch.int, device=device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags)


def gather_numbers(numbers: Tensor, device: torch.device) -> Tensor:
    """Gather numbers that the hosts hold, in one collective; waits for the device once.

    Args:
        numbers: (L,) on the CPU; L and the dtype must be the same in all processes.
        device: device used by the group's collectives.

    Returns:
        (processes, L) on the CPU.
    """
    if world_size() == 1:
        return numbers.unsqueeze(0)
    own = to_device(numbers, device)
    gathered = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(gathered, own)
    return torch.stack(gathered).cpu()


@torch.no_grad()
def gather_rows(rows: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
    """Gather the rows of all processes in rank order, without gradient.

    Args:
        rows: (N, ...); N may be 0 and may differ between processes, but the other dimensions must not.
        lengths: N of each process; exchanged first, which waits for the device, if not given.

    Returns:
        (sum of N, ...).
    """
    if world_size() == 1:
        return rows
    if lengths is None:
        lengths = gather_numbers(torch.tensor([len(rows)]), rows.device)[:, 0].tolist()
    # Gloo only gathers equal shapes, so pad the shorter parts.
    padded = rows.new_zeros(max(lengths), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


class BatchShuffle:
    """Shuffles images between processes, so that batch norm statistics do not reveal a query's key (ShuffleBN).

    MoCo (arXiv 1911.05722, section 3.3) reverses the permutation on the embeddings. The CCOP authors also gather p2 to
    p5, to pool each box in its original process. Here, boxes move with their images and only embeddings are sent back,
    which gives the same numbers without sending feature maps. Each image is sent only to the process that embeds it.

    Every process draws a permutation from torch's global generator, to keep the generators in sync, but only rank 0's
    is used. Call `exchange_boxes` first; it waits for the device once, the constructor too, and the rest never.

    Args:
        images: number of images of this process; may differ between processes.
        device: device used by the process group's collectives.
        alone: whether to shuffle even if there is only one process; if False, a single process draws nothing.
        boxes: number of boxes of this process's images.
        copies: upper limit of the number of copies of each box to exchange, the same for all processes.

    Attributes:
        images: number of images of each process.
        boxes: number of boxes of each process.
    """

    def __init__(self, images: int, device: torch.device, alone: bool = False, boxes: int = 0, copies: int = 1) -> None:
        self.images, self.boxes = [images], [boxes]
        self._device = device
        self._active = world_size() > 1 or alone
        if not self._active:
            return
        sizes = gather_numbers(torch.tensor([images, boxes]), device)
        self.images, self.boxes = sizes[:, 0].tolist(), sizes[:, 1].tolist()
        self._most_boxes = copies * max(self.boxes)
        self._permutation = torch.randperm(sum(self.images))
        ends = sizes[:, 0].cumsum(0)
        self._mine = slice(int(ends[rank()]) - images, int(ends[rank()]))
        self._process = torch.repeat_interleave(torch.arange(len(self.images)), sizes[:, 0])

    def exchange_boxes(self, boxes: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Exchange the boxes of this process's images for those of the images that it will embed.

        Args:
            boxes: (M, 4) float32 on the CPU, image by image.
            counts: number of boxes of each image, M in total.

        Returns:
            Boxes and counts of the same number of images, permuted.
        """
        if not self._active:
            return boxes, list(counts)
        total, most_images = sum(self.images), max(self.images)
        numbers = torch.zeros(total + most_images + 4 * self._most_boxes, dtype=torch.int32)
        numbers[:total] = self._permutation
        numbers[total : total + len(counts)] = torch.tensor(list(counts), dtype=torch.int32)
        numbers[total + most_images :][: boxes.numel()] = boxes.contiguous().view(torch.int32).flatten()
        gathered = gather_numbers(numbers, self._device)
        self._permutation = gathered[0, :total].long()
        per_image, rows = [], []
        for size, received in zip(self.images, gathered, strict=True):
            per_image.append(received[total : total + size].long())
            rows.append(received[total + most_images :][: 4 * int(per_image[-1].sum())])
        self._counts = torch.cat(per_image)
        seen = self._permutation[self._mine]
        everything = torch.cat(rows).view(torch.float32).view(-1, 4)
        return everything[_rows_of(seen, self._counts)], self._counts[seen].tolist()

    def exchange_images(self, images: Tensor) -> Tensor:
        """Exchange this process's images for those that it will embed: (n, ...) on the device."""
        if not self._active:
            return images
        places = self._permutation.argsort()[self._mine]
        sending, receiving = self._process[places], self._process[self._permutation[self._mine]]
        return self._send(
            images,
            places.argsort(),
            receiving.argsort(stable=True),
            sending.bincount(minlength=len(self.images)).tolist(),
            receiving.bincount(minlength=len(self.images)).tolist(),
        )

    def restore(self, image_keys: Tensor | None, box_keys: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Send embeddings back to the processes of their images, in one collective.

        Args:
            image_keys: (n, D) embeddings of the images that this process embedded, or None.
            box_keys: (M, D) embeddings of the boxes that this process embedded, or None.

        Returns:
            Embeddings of this process's own images and boxes, in their own order.
        """
        if not self._active:
            return image_keys, box_keys
        ones = torch.ones_like(self._counts)
        given = [(keys, counts) for keys, counts in ((image_keys, ones), (box_keys, self._counts)) if keys is not None]
        own = torch.arange(self._mine.start, self._mine.stop)
        places, seen = self._permutation.argsort()[own], self._permutation[self._mine]
        to, came_from = self._process[seen], self._process[places]
        order, origin, sent, received = [], [], [], []
        for process in range(len(self.images)):
            sending = (to == process).nonzero().flatten()
            returning = (came_from == process).nonzero().flatten()
            returning = returning[places[returning].argsort()]
            first_out = first_in = 0
            for _, counts in given:
                order.append(first_out + _rows_of(sending, counts[seen]))
                origin.append(first_in + _rows_of(returning, counts[own]))
                first_out, first_in = first_out + int(counts[seen].sum()), first_in + int(counts[own].sum())
            sent.append(sum(len(rows) for rows in order[-len(given) :]))
            received.append(sum(len(rows) for rows in origin[-len(given) :]))
        keys = self._send(torch.cat([keys for keys, _ in given]), torch.cat(order), torch.cat(origin), sent, received)
        parts = iter(torch.split(keys, [int(counts[own].sum()) for _, counts in given]))
        return (
            None if image_keys is None else next(parts),
            None if box_keys is None else next(parts),
        )

    def _send(self, rows: Tensor, order: Tensor, target: Tensor, sent: list[int], received: list[int]) -> Tensor:
        """Send rows in `order`, `sent[p]` of them to process p, and put what arrives into the rows `target`."""
        outgoing = rows.index_select(0, to_device(order, rows.device))
        if len(self.images) > 1:
            incoming = rows.new_empty(sum(received), *rows.shape[1:])
            dist.all_to_all_single(incoming, outgoing, received, sent)
            outgoing = incoming
        return outgoing.index_select(0, to_device(target.argsort(), rows.device))


def _rows_of(images: Tensor, counts: Tensor) -> Tensor:
    """List the rows of some images, in their order, where image i has `counts[i]` consecutive rows: (K,) -> (M,)."""
    starts, lengths = (counts.cumsum(0) - counts)[images], counts[images]
    before = lengths.cumsum(0) - lengths
    return torch.repeat_interleave(starts - before, lengths) + torch.arange(int(lengths.sum()))
