"""Train linear classifiers on frozen, average-pooled res5, with the same batches for all sides."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ccop_hub.architectures import stage_channels
from ccop_hub.errors import UserError
from ccop_hub.frozen_network import FrozenNetwork
from ccop_hub.progress import tracked
from ccop_hub.readers import Reader
from ccop_hub.stopping import StopRequest

from ..common.compute import (
    all_finite,
    derived_seed,
    failing_together,
    gather_rows,
    raise_if_stopped,
    readable,
    share,
    share_buffers,
)
from ..common.images import ClassFolders, SeededImages, test_transform, train_transform
from ..common.run_folder import RunFolder
from ..protocols import LinearProtocol
from ..results.result import Curve
from ..settings import LinearSettings
from .features import require_finite
from .heads import HeadGrid, diverged, head_losses, head_specs, make_optimizer, set_rates, top_hits

ORDER_DRAW, HEAD_DRAW = 2, 3
"""Separate the seeds of different draws; 1 is the hold-out's (see `linear`)."""


@dataclass(frozen=True)
class Scored:
    """Predictions of one network's heads on a set of images.

    Attributes:
        top1: (heads, N) bool.
        top5: (heads, N) bool.
        predicted: (heads, N) class indices.
    """

    top1: Tensor
    top5: Tensor
    predicted: Tensor


class LinearTraining:
    """Trains the head grids of all sides together: each batch is loaded once and passed to every network.

    Args:
        fabric: the processes.
        settings: the run's settings.
        protocol: the protocol, including departures.
        networks: each side's frozen network.
        train: training images.
        val: validation images, for scoring.
        kept: indices of the training images to train on.
        holdout: indices of the training images used to select the head; empty if there is only one.
    """

    def __init__(
        self,
        fabric: Fabric,
        settings: LinearSettings,
        protocol: LinearProtocol,
        networks: Mapping[str, FrozenNetwork],
        train: ClassFolders,
        val: ClassFolders,
        kept: list[int],
        holdout: list[int],
    ) -> None:
        self.fabric, self.settings, self.protocol, self.networks = fabric, settings, protocol, networks
        self.train_split, self.val_split, self.kept, self.holdout = train, val, kept, holdout
        self.labels = torch.tensor(train.labels)
        self.curves: dict[str, Curve] = {side: [] for side in networks}
        specs, seed = head_specs(protocol), derived_seed(settings.seed, HEAD_DRAW)
        widths = {side: stage_channels(network.network.backbone)[-1] for side, network in networks.items()}
        grids = nn.ModuleDict(
            {side: HeadGrid(width, len(train.classes), specs, seed) for side, width in widths.items()}
        )
        if fabric.device.type == "cuda" and fabric.world_size > 1:
            grids = nn.SyncBatchNorm.convert_sync_batchnorm(grids)  # type: ignore[no-untyped-call]
        groups = [group for grid in grids.values() for group in grid.parameter_groups()]  # type: ignore[operator]
        # Scoring bypasses the distributed wrapper, since processes score different numbers of images.
        self.heads = _Sides(grids)
        self.grids, self.optimizer = fabric.setup(self.heads, make_optimizer(groups))

    def train(self, folder: RunFolder, identity: dict[str, Any]) -> None:
        """Train all heads for the protocol's epochs, saving the state after each, and when asked to stop."""
        state: dict[str, Any] = {
            "grids": self.grids,
            "optimizer": self.optimizer,
            "epoch": 0,
            "step": 0,
            "totals": {},
            "curves": self.curves,
            "identity": identity,
        }
        folder.load_state(state)
        self.curves = state["curves"]
        for epoch in range(state["epoch"], self.protocol.epochs):
            losses = self._train_epoch(epoch, state, folder)
            watched = self.score(self.holdout, self.train_split) if self.holdout else self.score(None, self.val_split)
            where = "holdout" if self.holdout else "val"
            for side, curve in self.curves.items():
                best = float(100 * watched[side].top1.double().mean(1).max())
                curve.append({"step": (epoch + 1) * self._steps(), "train/loss": losses[side], f"{where}/top1": best})
            state |= {"epoch": epoch + 1, "step": 0, "totals": {}, "curves": self.curves}
            folder.save_state(state)
            if folder.main:
                shown = ", ".join(f"{side} {curve[-1][f'{where}/top1']:.1f}" for side, curve in self.curves.items())
                print(f"epoch {epoch + 1}/{self.protocol.epochs}: {where} top-1 {shown}", flush=True)

    def choose(self) -> tuple[dict[str, int], dict[str, Scored], dict[str, list[dict[str, Any]]]]:
        """Return each side's best head by hold-out accuracy, all heads' scores on val, and a table of all heads."""
        held = self.score(self.holdout, self.train_split) if self.holdout else None
        scored = self.score(None, self.val_split)
        chosen, heads = {}, {}
        for side, on_val in scored.items():
            accuracy = held[side].top1.double().mean(1) if held else torch.zeros(len(on_val.top1), dtype=torch.float64)
            chosen[side] = int(accuracy.argmax())
            heads[side] = [
                {
                    "lr": spec.base_rate,
                    "effective_lr": spec.rate,
                    "normalised": spec.normalised,
                    **({"holdout/top1": float(100 * accuracy[index])} if held else {}),
                    "val/top1": float(100 * on_val.top1[index].double().mean()),
                }
                for index, spec in enumerate(head_specs(self.protocol))
            ]
        return chosen, scored, heads

    @torch.no_grad()
    def score(self, indices: list[int] | None, split: ClassFolders) -> dict[str, Scored]:
        """Score all heads on a split's images with the test transform; every process gets all scores.

        Args:
            indices: image indices; None for all.
            split: the split.
        """
        wanted = list(range(len(split.paths))) if indices is None else indices
        mine = [wanted[position] for position in share(self.fabric, len(wanted))]
        images = SeededImages(split.paths, test_transform(self.protocol.image_size))
        batch = max(1, self.protocol.batch_size // self.fabric.world_size)
        loader = Reader(images, batch_sampler=_batches(mine, batch), num_workers=self.settings.workers)
        labels = torch.tensor(split.labels)
        heads = len(head_specs(self.protocol))
        found: dict[str, list[Tensor]] = {side: [torch.zeros(0, heads, 3, dtype=torch.int64)] for side in self.networks}
        share_buffers(self.fabric, self.heads)
        self.heads.eval()
        with failing_together(self.fabric):
            count = -(-len(mine) // batch)
            for pixels, index in tracked(
                readable(loader), "scoring", count, unit="batches", shown=self.fabric.global_rank == 0
            ):
                truth = labels[index].to(self.fabric.device)
                features = self._features(pixels)
                for side, logits in self.heads(features).items():
                    require_finite(
                        features[side], f"{split.paths[index[0]].parent} by {self.networks[side].weights.name}"
                    )
                    top1, top5 = (top_hits(logits, truth, k).long() for k in (1, 5))
                    hits = torch.stack([top1, top5, logits.argmax(-1)], dim=-1)
                    found[side].append(hits.transpose(0, 1).cpu())
        gathered = {side: gather_rows(self.fabric, torch.cat(rows), len(wanted)) for side, rows in found.items()}
        return {
            side: Scored(rows[..., 0].T.bool(), rows[..., 1].T.bool(), rows[..., 2].T)
            for side, rows in gathered.items()
        }

    def _train_epoch(self, epoch: int, state: dict[str, Any], folder: RunFolder) -> dict[str, float]:
        """Train one epoch, or its rest after step `state["step"]`; return the mean loss of each side's best head.

        Raises:
            Stopped: a stop signal was received; the state is saved.
        """
        start = state["step"]
        images = SeededImages(
            self.train_split.paths, train_transform(self.protocol.image_size), self.settings.seed, epoch
        )
        loader = Reader(images, batch_sampler=self._epoch_batches(epoch)[start:], num_workers=self.settings.workers)
        totals = state["totals"] or {side: torch.zeros(len(head_specs(self.protocol))) for side in self.networks}
        self.grids.train()
        what = f"epoch {epoch + 1} of {self.protocol.epochs}"
        shown = self.fabric.global_rank == 0
        batches = tracked(readable(loader), what, self._steps(), start, unit="steps", shown=shown)

        def save(step: int) -> None:
            state.update(step=step, totals=totals)
            folder.save_state(state)

        with contextlib.closing(batches), StopRequest() as request:
            for step, (pixels, index) in enumerate(batches, start=start):
                self._step(epoch, step, pixels, index, totals)
                raise_if_stopped(self.fabric, request, functools.partial(save, step + 1))
        return {side: float(total.min()) / self._steps() for side, total in totals.items()}

    def _step(self, epoch: int, step: int, pixels: Tensor, index: Tensor, totals: dict[str, Tensor]) -> None:
        """Train all heads on one batch and add their losses to `totals`."""
        done = epoch + (step / self._steps() if self.protocol.steps is None else 0.0)
        set_rates(self.optimizer.optimizer, done, self.protocol.epochs, self.protocol.steps)
        truth = self.labels[index].to(self.fabric.device)
        features = self._features(pixels)
        losses = {side: head_losses(logits.float(), truth) for side, logits in self.grids(features).items()}
        self._require_finite(features, losses)
        self.optimizer.zero_grad()
        self.fabric.backward(torch.cat(list(losses.values())).sum())
        self.optimizer.step()
        for side, loss in losses.items():
            totals[side] += loss.detach().cpu()

    def _require_finite(self, features: Mapping[str, Tensor], losses: Mapping[str, Tensor]) -> None:
        """Raise a `UserError` with the likely cause in all processes if any of them has a non-finite loss."""
        if all_finite(self.fabric, torch.cat(list(losses.values())).detach()):
            return
        with failing_together(self.fabric):
            for side, values in losses.items():
                require_finite(features[side], f"the training images by {self.networks[side].weights.name}")
                if not torch.isfinite(values).all():
                    raise diverged(self.networks[side].weights.name, values.detach(), head_specs(self.protocol))

    def _features(self, pixels: Tensor) -> dict[str, Tensor]:
        pixels = self.fabric.to_device(pixels)
        with self.fabric.autocast():
            return {side: network.pooled(pixels) for side, network in self.networks.items()}

    def _epoch_batches(self, epoch: int) -> list[list[int]]:
        """This process's part of each batch of an epoch, in an order determined by (seed, epoch)."""
        generator = torch.Generator().manual_seed(derived_seed(self.settings.seed, ORDER_DRAW, epoch))
        order = [self.kept[position] for position in torch.randperm(len(self.kept), generator=generator).tolist()]
        world = self.fabric.world_size
        # Batch norm needs at least two images per process, which the last batch may not have.
        batches = [batch for batch in _batches(order, self.protocol.batch_size) if len(batch) >= 2 * world]
        if not batches:
            raise UserError(
                f"no batch has two images for each of the {world} processes ({len(order)} training images, "
                f"--batch-size {self.protocol.batch_size}): give more images, or fewer --devices"
            )
        return [batch[self.fabric.global_rank :: world] for batch in batches]

    def _steps(self) -> int:
        full, rest = divmod(len(self.kept), self.protocol.batch_size)
        return full + (rest >= 2 * self.fabric.world_size)


class _Sides(nn.Module):
    """Applies each side's grid to that side's features."""

    def __init__(self, grids: nn.ModuleDict) -> None:
        super().__init__()
        self.grids = grids

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {side: self.grids[side](values.float()) for side, values in features.items()}


def _batches(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]
