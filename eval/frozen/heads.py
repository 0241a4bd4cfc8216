"""Grids of linear classifiers trained in parallel on the same frozen features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccop_hub.errors import UserError

from ..protocols import LinearProtocol

MOMENTUM = 0.9
INITIAL_STD = 0.01
"""Standard deviation of a head's initial weights (MoCo's main_lincls.py; DINOv2's eval/linear.py)."""


@dataclass(frozen=True)
class HeadSpec:
    """One head of a grid.

    Attributes:
        base_rate: the protocol's learning rate.
        rate: learning rate scaled to the batch size.
        normalised: whether to batch-normalise its features.
    """

    base_rate: float
    rate: float
    normalised: bool

    @property
    def label(self) -> str:
        """The head's name in tables."""
        return f"lr {self.base_rate:g}" + (", batch-normalised" if self.normalised else "")


def head_specs(protocol: LinearProtocol) -> list[HeadSpec]:
    """A protocol's grid: all rates on plain features, then, in a sweep, all rates on batch-normalised ones."""
    scale = protocol.batch_size / 256 if protocol.scale_rates else 1.0
    kinds = (False, True) if protocol.normalised else (False,)
    return [HeadSpec(rate, rate * scale, kind) for kind in kinds for rate in protocol.rates]


class HeadGrid(nn.Module):
    """Independent linear classifiers on the same features, one per spec.

    Args:
        features: feature dimension.
        classes: number of classes.
        specs: the heads.
        seed: seed of the initial weights, drawn from N(0, 0.01); biases start at 0.
    """

    def __init__(self, features: int, classes: int, specs: Sequence[HeadSpec], seed: int) -> None:
        super().__init__()
        self.specs = list(specs)
        self.heads = nn.ModuleList(nn.Linear(features, classes) for _ in specs)
        self.normalise = nn.BatchNorm1d(features, affine=False)
        generator = torch.Generator().manual_seed(seed)
        for head in self.heads:
            assert isinstance(head, nn.Linear)
            nn.init.normal_(head.weight, std=INITIAL_STD, generator=generator)
            nn.init.zeros_(head.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, features) float -> (heads, N, classes) logits."""
        normalised = self.normalise(features) if any(spec.normalised for spec in self.specs) else features
        return torch.stack(
            [
                head(normalised if spec.normalised else features)
                for spec, head in zip(self.specs, self.heads, strict=True)
            ]
        )

    def parameter_groups(self) -> list[dict[str, object]]:
        """One parameter group per head, for an optimizer."""
        return [
            {"params": list(head.parameters()), "lr": spec.rate, "peak": spec.rate}
            for spec, head in zip(self.specs, self.heads, strict=True)
        ]


def head_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Each head's mean cross-entropy, (heads,). Training minimises the sum, so heads do not affect each other.

    Args:
        logits: (heads, N, classes).
        labels: (N,) int64.
    """
    heads, count, classes = logits.shape
    losses = F.cross_entropy(logits.reshape(-1, classes), labels.repeat(heads), reduction="none")
    return losses.view(heads, count).mean(1)


def diverged(side: str, losses: Tensor, specs: Sequence[HeadSpec]) -> UserError:
    """Make the error for a non-finite loss despite finite features.

    Args:
        side: the side whose heads diverged.
        losses: (heads,) losses.
        specs: the heads.
    """
    number = int((~torch.isfinite(losses)).nonzero().flatten()[0])
    return UserError(
        f"the loss of head '{specs[number].label}' on {side} became {losses[number]:g}: its learning rate is too "
        "high for these features; use a protocol with lower rates, or weights with smaller features"
    )


def make_optimizer(groups: list[dict[str, object]]) -> torch.optim.SGD:
    """Make an SGD optimizer (momentum 0.9, no weight decay) over `HeadGrid.parameter_groups`."""
    return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, weight_decay=0.0)


def set_rates(optimizer: torch.optim.Optimizer, done: float, epochs: int, steps: tuple[int, ...] | None) -> None:
    """Set all heads' learning rates.

    Args:
        optimizer: over `HeadGrid.parameter_groups`.
        done: epochs done, as a fraction.
        epochs: total number of epochs.
        steps: epochs after which rates are divided by ten; None uses cosine decay to 0.
    """
    if steps is None:
        factor = 0.5 * (1 + math.cos(math.pi * min(done / epochs, 1.0)))
    else:
        factor = 0.1 ** sum(done >= step for step in steps)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def top_hits(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether the true class is in the top k: (..., N, classes) logits, (N,) labels -> (..., N) bool."""
    best = logits.topk(min(k, logits.shape[-1]), dim=-1).indices
    return (best == labels.unsqueeze(-1)).any(dim=-1)
