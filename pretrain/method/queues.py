"""Ring buffers of past keys, used as negatives (MoCo, arXiv 1911.05722, section 3.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from .host_value import HostValue

QueueEnd = Literal["drop", "wrap"]


class KeyQueue(nn.Module):
    """A queue of the latest `length` keys, identical on every process and saved in the state dict.

    Initialised with random unit vectors from torch's global generator.

    Args:
        length: number of keys, at least 1.
        dim: dimension of a key.
        end: how to handle keys that do not fit in the remaining rows: `wrap` writes them from row 0; `drop` discards
            them and starts the next batch at row 0, as the authors' code does.

    Attributes:
        keys: (length, dim) float, unit vectors.
        pointer: 0-d long, next row to write.
        written: (length,) long, the `enqueue` call (counted from 1) that wrote each key; 0 for the initial keys.
        calls: 0-d long, number of `enqueue` calls so far.
    """

    keys: Tensor
    pointer: Tensor
    written: Tensor
    calls: Tensor

    def __init__(self, length: int, dim: int, end: QueueEnd) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"a queue of {length} keys; it needs at least 1")
        self.end = end
        self.register_buffer("keys", normalize(torch.randn(length, dim)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.register_buffer("written", torch.zeros(length, dtype=torch.long))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self._next_row = HostValue()

    def age(self) -> Tensor:
        """Return the mean age of the keys in `enqueue` calls, 0-d float; the newest keys have age 0."""
        return (self.calls - self.written).float().mean()

    def filled(self) -> Tensor:
        """Return the share of rows that no longer contain the random initial keys, 0-d float."""
        return (self.written > 0).float().mean()

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Write (N, dim) keys, identical on every process; N may be 0 or exceed the length."""
        length, start = len(self.keys), self._next_row.read(self.pointer)
        if self.end == "drop":
            keys = keys[: length - start]
        latest = keys[-length:].to(self.keys.dtype)
        first = (start + len(keys) - len(latest)) % length
        before_end = latest[: length - first]
        self.calls += 1
        for row, part in ((first, before_end), (0, latest[len(before_end) :])):
            self.keys[row : row + len(part)] = part
            self.written[row : row + len(part)] = self.calls
        self._next_row.write(self.pointer, (start + len(keys)) % length)
