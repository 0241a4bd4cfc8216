"""Train and score the segmentation network; training resumes from any saved iteration."""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset
from torchvision.transforms.functional import pil_to_tensor

from ccop_hub.errors import UserError
from ccop_hub.progress import tracked
from ccop_hub.readers import Reader
from ccop_hub.stopping import StopRequest

from ..common.compute import (
    all_finite,
    failing_together,
    gather_rows,
    raise_if_stopped,
    readable,
    saved_if_stopped,
    share,
    share_buffers,
)
from ..common.run_folder import RunFolder
from ..protocols import SegmentationProtocol
from ..results.result import Curve
from .crops import TrainingCrops, base_size
from .dataset import LabelledImages, LabelledSplit
from .label_table import IGNORED
from .network import Fcn16
from .scoring import class_map, confusion, segmentation_metrics, sliding_logits

WEIGHT_DECAY = 1e-4
MOMENTUM = 0.9
POLY_POWER = 0.9
STEPS = (0.7, 0.9)
"""Fractions of the schedule after which `steps` divides the rate by ten: 63k and 81k of 90k iterations."""


class ScoredImages(Dataset[tuple[Tensor, Tensor]]):
    """Images at test size, labels at original size: ((3, H, W) uint8 RGB, (h, w) uint8 class indices)."""

    def __init__(self, data: LabelledImages, split: LabelledSplit, protocol: SegmentationProtocol) -> None:
        self.data, self.split, self.protocol = data, split, protocol

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self.data.read(self.split, index)
        scaled = image.resize(base_size(image, self.protocol), Image.Resampling.BILINEAR)
        pixels: Tensor = pil_to_tensor(scaled)
        return pixels, torch.from_numpy(label)


class Segmentation:
    """A network, its optimizer and its data.

    Args:
        fabric: the processes.
        network: the network.
        data: the images.
        protocol: the protocol, including departures, with its length in `iterations`.
        seed: seed of order and crops.
        workers: number of data-loading processes.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: Fcn16,
        data: LabelledImages,
        protocol: SegmentationProtocol,
        seed: int,
        workers: int,
    ) -> None:
        self.fabric, self.data, self.protocol, self.seed, self.workers = fabric, data, protocol, seed, workers
        self.classes = len(data.table.classes)
        self.synchronised = fabric.device.type == "cuda" and fabric.world_size > 1
        module: nn.Module = network
        if self.synchronised:
            module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimizer: torch.optim.Optimizer
        if protocol.optimizer == "sgd":
            optimizer = torch.optim.SGD(trained, lr=protocol.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        else:
            optimizer = torch.optim.Adam(trained, lr=protocol.lr, weight_decay=WEIGHT_DECAY)
        self.module, self.optimizer = fabric.setup(module, optimizer)
        # Scoring bypasses the distributed wrapper, since processes score different numbers of images.
        self.network = module
        self.curve: Curve = []

    def train(self, folder: RunFolder, identity: dict[str, Any], evaluate_every: int, save_every: int) -> None:
        """Train to the last iteration.

        Args:
            folder: the run folder, for saving state.
            identity: the run's identity; other runs' states are refused.
            evaluate_every: iterations between evaluations on val; 0 evaluates only at the end.
            save_every: iterations between saves of the state.
        """
        total, batch = self.protocol.iterations, self.protocol.batch_size
        state = {"network": self.module, "optimizer": self.optimizer, "iteration": 0, "curve": [], "identity": identity}
        state["losses"] = []  # since the last entry of the curve
        folder.load_state(state)
        self.curve, losses, start = state["curve"], state["losses"], state["iteration"]
        crops = TrainingCrops(self.data, self.protocol, self.seed, total * batch)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        batches = [list(range(step * batch + rank, (step + 1) * batch, world)) for step in range(start, total)]
        report = max(1, total // 50)

        def save(done: int) -> None:
            state.update(iteration=done, curve=self.curve, losses=losses)
            folder.save_state(state)

        def evaluate(done: int) -> None:
            due = evaluate_every and 0 < done < total and done % evaluate_every == 0
            if due and not any(entry["step"] == done and "mIoU" in entry for entry in self.curve):
                self.curve.append({"step": done, **segmentation_metrics(self.score(self.data.val).sum(0))})

        evaluate(start)  # unless it was done before the run was stopped
        loader = readable(Reader(crops, batch_sampler=batches, num_workers=self.workers))
        read = tracked(loader, "training", total, start, "iterations", folder.main)
        with contextlib.closing(read), StopRequest() as request:
            for done, (pixels, truth) in enumerate(read, start=start + 1):
                losses.append(self._step(done - 1, pixels, truth))
                if done % report == 0 or done == total:
                    self._report(done, losses, folder)
                if done % save_every == 0 or done == total:
                    save(done)
                raise_if_stopped(self.fabric, request, functools.partial(save, done))
                with saved_if_stopped(self.fabric, functools.partial(save, done)), request.paused():
                    evaluate(done)

    def _report(self, done: int, losses: list[float], folder: RunFolder) -> None:
        """Add the mean of `losses` to the curve, and clear them."""
        mean = float(np.mean(losses))
        losses.clear()
        self.curve.append({"step": done, "train/loss": mean})
        if folder.main:
            print(f"iteration {done}/{self.protocol.iterations}: loss {mean:.4f}", flush=True)

    @torch.no_grad()
    def predict(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """Predict the class map of a (3, H, W) image at test size; returns (h, w) class indices at `size` (h, w)."""
        self.network.eval()
        image = self.fabric.to_device(pixels).unsqueeze(0).float()
        with self.fabric.autocast():
            logits = sliding_logits(self.network, image, self.protocol.crop_size, self.protocol.stride)
        if not torch.isfinite(logits).all():
            raise UserError("the network's output is not finite (NaN or infinity): use a lower --lr, or other weights")
        return class_map(logits, size)

    def score(self, split: LabelledSplit) -> np.ndarray:
        """Score a split; every process gets all images' confusion matrices, (images, classes, classes) int64."""
        share_buffers(self.fabric, self.network)
        images = ScoredImages(self.data, split, self.protocol)
        mine = share(self.fabric, len(images))
        matrices = [torch.zeros(0, self.classes, self.classes, dtype=torch.int64)]
        with failing_together(self.fabric):
            loader = readable(Reader(Subset(images, mine), batch_size=None, num_workers=self.workers))
            for pixels, truth in tracked(loader, "scoring", len(mine), shown=self.fabric.global_rank == 0):
                predicted = self.predict(pixels, (truth.shape[0], truth.shape[1]))
                matrices.append(confusion(predicted.cpu(), truth.long(), self.classes).unsqueeze(0))
        gathered: np.ndarray = gather_rows(self.fabric, torch.cat(matrices), len(images)).numpy()
        return gathered

    def _step(self, iteration: int, pixels: Tensor, truth: Tensor) -> float:
        """Run one optimizer step and return the loss."""
        self.module.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.protocol.lr * rate_factor(iteration, self.protocol)
        logits = self.module(self.fabric.to_device(pixels))
        # The mean over zero pixels is NaN, but a batch without labelled pixels should simply have no effect.
        target = self.fabric.to_device(truth)
        counted = (target != IGNORED).sum().clamp(min=1)
        loss = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum") / counted
        if not all_finite(self.fabric, loss.detach()):
            raise UserError(
                f"the loss became {float(loss.detach()):g} at iteration {iteration + 1}: training diverged or the "
                "weights are damaged; use a lower --lr, or other weights"
            )
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        return float(loss.detach())


def rate_factor(iteration: int, protocol: SegmentationProtocol) -> float:
    """Learning rate at an iteration, as a fraction of the peak."""
    done = iteration / protocol.iterations
    if protocol.schedule == "poly":
        return math.pow(1 - done, POLY_POWER)
    return 0.1 ** sum(iteration >= round(share_done * protocol.iterations) for share_done in STEPS)
