"""What the micro-batches of one training step share (gradient accumulation)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Step:
    """What the parts of a batch share during a step, and what they leave for its end.

    Attributes:
        images: images of the whole batch.
        boxes: boxes of a view of the whole batch.
        pairs: 0-d long, pairs of different objects of the whole batch.
        image_negatives: (K, D) keys of the image queue, as it was before the step.
        box_negatives: (K, D) keys of the box queue, alike.
        image_keys: a part's (n, D) keys each; as are `box_keys`, and the detached `image_queries` and `box_queries`.
        valid: a part's (n, C) valid candidates each.
        sums: detached 0-d losses and accuracies, of the parts so far.
    """

    images: int
    boxes: int
    pairs: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long))
    image_negatives: Tensor = field(default_factory=lambda: torch.empty(0))
    box_negatives: Tensor = field(default_factory=lambda: torch.empty(0))
    image_keys: list[Tensor] = field(default_factory=list)
    box_keys: list[Tensor] = field(default_factory=list)
    image_queries: list[Tensor] = field(default_factory=list)
    box_queries: list[Tensor] = field(default_factory=list)
    valid: list[Tensor] = field(default_factory=list)
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, shares: dict[str, Tensor]) -> None:
        """Add a part's shares of losses or accuracies."""
        for name, value in shares.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach()
