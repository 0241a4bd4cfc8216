"""Rings of past keys, the negatives of the contrastive losses (MoCo, arXiv 1911.05722, section 3.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

QueueEnd = Literal["drop", "wrap"]


class KeyQueue(nn.Module):
    """The latest `length` keys, the same on every process, saved with the state dict.

    It starts with random unit vectors from torch's global generator.

    Args:
        length: keys held, at least 1.
        dim: length of a key.
        end: what happens to keys that do not fit before the last row: `wrap` writes them from row 0; `drop` discards
            them, and the next keys start at row 0 (the authors' code).

    Attributes:
        keys: (length, dim) float, unit rows.
        pointer: 0-d long, the row that the next key goes to.
        written: (length,) long, the call of `enqueue` (from 1) that wrote a key; 0 for the random start.
        calls: 0-d long, calls of `enqueue` so far.
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

    def age(self) -> Tensor:
        """Mean age of the keys in calls of `enqueue`, 0-d float; the newest keys have age 0."""
        return (self.calls - self.written).float().mean()

    def filled(self) -> Tensor:
        """Share of the queue that holds keys rather than its random start, 0-d float."""
        return (self.written > 0).float().mean()

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Write (N, dim) keys, the same on every process; N may be 0 or exceed the length."""
        length, start = len(self.keys), int(self.pointer)
        if self.end == "drop":
            keys = keys[: length - start]
        rows = torch.arange(start, start + len(keys), device=self.keys.device)[-length:] % length
        self.calls += 1
        self.written[rows] = self.calls
        self.keys[rows] = keys[-length:].to(self.keys.dtype)
        self.pointer.fill_((start + len(keys)) % length)
