"""A sweep of linear heads on precomputed features, with the same batches for all sides."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..common.compute import derived_seed
from ..common.run_folder import RunFolder
from ..frozen.heads import HeadGrid, diverged, head_losses, head_specs, make_optimizer, set_rates
from ..protocols import RegionProtocol
from ..results.result import Curve

ORDER_DRAW, HEAD_DRAW = 2, 3
"""Separate the seeds of different draws; 1 and 4 are used in `run`."""

_SCORE_BLOCK = 8192


class HeadSweep:
    """Trains the head grids of all sides.

    Args:
        features: side -> (M, D) float32 features of the training boxes.
        labels: (M,) class indices.
        classes: number of classes.
        kept: rows to train on.
        held: held-out rows, used to select the head.
        protocol: the protocol, including departures.
        seed: seed of the heads' initial weights and of the order.
        device: device to train on.
    """

    def __init__(
        self,
        features: dict[str, np.ndarray],
        labels: np.ndarray,
        classes: int,
        kept: np.ndarray,
        held: np.ndarray,
        protocol: RegionProtocol,
        seed: int,
        device: torch.device,
    ) -> None:
        self.features, self.labels, self.kept, self.held = features, torch.from_numpy(labels), kept, held
        self.protocol, self.seed, self.device = protocol, seed, device
        self.specs = head_specs(protocol)
        head_seed = derived_seed(seed, HEAD_DRAW)
        self.grids = {
            side: HeadGrid(values.shape[1], classes, self.specs, head_seed).to(device)
            for side, values in features.items()
        }
        self.optimizer = make_optimizer([group for grid in self.grids.values() for group in grid.parameter_groups()])
        self.curves: dict[str, Curve] = {side: [] for side in features}

    def train(self, folder: RunFolder, identity: dict[str, Any]) -> None:
        """Train for the protocol's epochs, saving the state after each."""
        modules = nn.ModuleDict(self.grids)
        state: dict[str, Any] = {
            "grids": modules,
            "optimizer": self.optimizer,
            "epoch": 0,
            "curves": self.curves,
            "identity": identity,
        }
        folder.load_state(state)
        self.curves = state["curves"]
        for epoch in range(state["epoch"], self.protocol.epochs):
            losses, steps = self._train_epoch(epoch)
            for side, curve in self.curves.items():
                best = float(100 * self._accuracy(side, self.held).max())
                curve.append({"step": (epoch + 1) * steps, "train/loss": losses[side], "holdout/overall": best})
            state |= {"epoch": epoch + 1, "curves": self.curves}
            folder.save_state(state)

    def choose(self) -> tuple[dict[str, int], dict[str, list[dict[str, Any]]]]:
        """Return each side's best head by hold-out accuracy, and a table of all heads."""
        chosen, heads = {}, {}
        for side in self.features:
            accuracy = self._accuracy(side, self.held)
            chosen[side] = int(accuracy.argmax())
            heads[side] = [
                {
                    "lr": spec.base_rate,
                    "effective_lr": spec.rate,
                    "normalised": spec.normalised,
                    "holdout/overall": float(100 * accuracy[index]),
                }
                for index, spec in enumerate(self.specs)
            ]
        return chosen, heads

    @torch.no_grad()
    def predict(self, side: str, features: np.ndarray) -> Tensor:
        """Predict classes with every head: (N, D) features -> (heads, N) int64."""
        grid = self.grids[side].eval()
        blocks = [
            grid(torch.from_numpy(np.array(features[start : start + _SCORE_BLOCK])).to(self.device)).argmax(-1).cpu()
            for start in range(0, len(features), _SCORE_BLOCK)
        ]
        return torch.cat(blocks, dim=1)

    def _accuracy(self, side: str, rows: np.ndarray) -> Tensor:
        return (self.predict(side, self.features[side][rows]) == self.labels[rows]).double().mean(1)

    def _train_epoch(self, epoch: int) -> tuple[dict[str, float], int]:
        """Train one epoch; returns the mean loss of each side's best head, and the number of steps."""
        order = self.kept[np.random.default_rng(derived_seed(self.seed, ORDER_DRAW, epoch)).permutation(len(self.kept))]
        size = self.protocol.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        batches = [batch for batch in batches if len(batch) > 1] or [order]
        totals = {side: torch.zeros(len(self.specs)) for side in self.grids}
        for grid in self.grids.values():
            grid.train()
        for step, batch in enumerate(batches):
            set_rates(self.optimizer, epoch + step / len(batches), self.protocol.epochs, None)
            rows = np.sort(batch)  # reading a memory map sequentially is fastest
            truth = self.labels[rows].to(self.device)
            self.optimizer.zero_grad()
            for side, grid in self.grids.items():
                loss = head_losses(grid(torch.from_numpy(self.features[side][rows]).to(self.device)), truth)
                if not torch.isfinite(loss).all():
                    raise diverged(side, loss.detach(), self.specs)
                loss.sum().backward()  # type: ignore[no-untyped-call]
                totals[side] += loss.detach().cpu()
            self.optimizer.step()
        return {side: float(total.min()) / len(batches) for side, total in totals.items()}, len(batches)
