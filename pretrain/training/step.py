"""The training step as a Lightning module: augmentation, gradient accumulation and the schedule."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from ccop_hub.formats.tensor_use import load_into
from ccop_hub.sources.resolve import resolve

from ..common import distributed
from ..common.seeding import derive_seed
from ..common.transfer import to_host
from ..method.batch import ViewBatch
from ..method.objective import ContrastivePretraining, StepOutput
from ..settings import RunSettings
from ..views.photometric import PhotometricAugmentation
from .activation_checkpointing import checkpoint_activations
from .divergence import SkippedSteps, require_finite
from .monitoring import CollapseAlarm, ShortcutAlarm
from .probe import Change, LabelledFolder, accuracy
from .schedule import Schedule

LOG = logging.getLogger("ccop_pretrain.training.step")

STEPS_LOG = logging.getLogger("ccop_pretrain.steps")
"""Logger for the line printed at each logged step."""


COMPILER = "inductor"
"""Backend of torch.compile."""


class PretrainingModule(LightningModule):
    """Lightning module of a run, with the encoders and queues in `objective`.

    Args:
        settings: settings of the run; `settings.seed` seeds the initial weights.
        schedule: length and learning rate schedule.
    """

    def __init__(self, settings: RunSettings, schedule: Schedule) -> None:
        super().__init__()
        # Lightning would average the losses of micro-batches, but these have different numbers of boxes.
        self.automatic_optimization = False
        self.run_settings = settings
        self.schedule = schedule
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed("weights", settings.seed))
            self.objective = ContrastivePretraining(settings, settings.backbone, schedule.steps, settings.image_size)
        if settings.init is not None:
            start_from(self.objective, settings.init, settings.backbone)
        if settings.channels_last:
            self.objective.to(memory_format=torch.channels_last)
        if settings.activation_checkpointing:
            checkpoint_activations(self.objective.query.network)
        if settings.compile:
            for encoder in (self.objective.query, self.objective.key):
                encoder.compile(backend=COMPILER)
        self.augmentation = PhotometricAugmentation(settings)
        self.skipped: dict[int, str] = {}
        self.last_report = ""
        self._throughput = Throughput()
        self._skipped_steps = SkippedSteps()
        self._scale: float | None = None
        self._alarms = (
            CollapseAlarm(settings, schedule.warmup_steps),
            ShortcutAlarm(settings, schedule.warmup_steps),
        )
        self._probe = None if settings.probe is None else LabelledFolder(settings.probe, settings.image_size)
        self._probe_start: Tensor | None = None
        self.probe_change: Change | None = None

    def training_step(self, batch: ViewBatch, batch_idx: int) -> dict[str, Any]:
        """Update the weights and the learning rate once; `batch_idx` is the step within the run, from 0."""
        self.skipped.update(batch.skipped)
        optimiser, rate = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimiser, LightningOptimizer)
        assert isinstance(rate, LRScheduler)
        optimiser.zero_grad()
        output = self.accumulate_gradients(batch, batch_idx)
        require_finite(batch_idx + 1, {**output.losses, "sum": output.loss}, batch.indices)
        self._update(optimiser, batch_idx + 1, batch)
        rate.step()
        self._throughput.step_ended(len(batch) * distributed.world_size())
        # Not in a hook after the step, because the metrics must be written before the checkpoint.
        self._watch(output, batch_idx + 1)
        return {"loss": output.loss}

    def _update(self, optimiser: LightningOptimizer, step: int, batch: ViewBatch) -> None:
        """Step the optimiser. On gradient overflow, fp16 loss scaling skips the step and halves its scale."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        # Reading the scale waits for the GPU, so remember it from the last step.
        if scaler is not None and self._scale is None:
            self._scale = scaler.get_scale()
        before = self._scale
        optimiser.step()
        if scaler is not None and before is not None:
            self._scale = scaler.get_scale()
            self._skipped_steps.look(step, self._scale < before, batch.indices)

    def accumulate_gradients(self, batch: ViewBatch, step: int) -> StepOutput:
        """Accumulate the gradients of a batch over its parts; `step` counts from 0.

        All randomness (augmentation, shuffling, jitters, dropout) is seeded by (seed, step, rank).
        """
        torch.manual_seed(derive_seed("step", self.run_settings.seed, step, distributed.rank()))
        batch = replace(
            batch, query_images=self._augment(batch.query_images), key_images=self._augment(batch.key_images)
        )
        self.objective.begin_step()
        totals = self.objective.totals(batch)
        parts = batch.split(self.run_settings.micro_batches)
        outputs = []
        for part in parts:
            outputs.append(self.objective(part, totals))
            self._backward(outputs[-1].loss, last=part is parts[-1])
        return self.objective.end_step(outputs, totals, monitor=self._is_reported(step + 1))

    def _backward(self, loss: Tensor, last: bool) -> None:
        """Run backward for one part; gradients are only synchronised between processes after the last part."""
        strategy = self.trainer.strategy
        with strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) and not last else nullcontext():
            self.manual_backward(loss)

    def _augment(self, images: Tensor) -> Tensor:
        """Augment and normalise: (B, 3, S, S) uint8 -> float32, even under autocast."""
        with torch.autocast(images.device.type, enabled=False):
            augmented: Tensor = self.augmentation(images)
        return augmented.contiguous(memory_format=torch.channels_last) if self.run_settings.channels_last else augmented

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Create the optimiser of all trained parameters, with a learning rate updated every step."""
        settings, trained = self.run_settings, list(self.trained_parameters())
        groups: list[dict[str, Any]] = [{"params": trained}]
        if not settings.decay_norms:
            # Biases and batch norm scales are exactly the 1-d parameters.
            groups = [
                {"params": [parameter for parameter in trained if parameter.ndim > 1]},
                {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
            ]
        # Fused: one pass over all parameters, and under fp16 loss scaling no wait for the GPU.
        common: dict[str, Any] = {"lr": self.schedule.peak_lr, "weight_decay": settings.weight_decay, "fused": True}
        optimiser: torch.optim.Optimizer
        if settings.optimizer == "adamw":
            optimiser = torch.optim.AdamW(groups, **common)
        else:
            optimiser = torch.optim.SGD(groups, momentum=settings.sgd_momentum, **common)
        return {"optimizer": optimiser, "lr_scheduler": LambdaLR(optimiser, self.schedule.factor)}

    def trained_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the trained parameters, all of which are in the query encoder."""
        return (parameter for parameter in self.objective.parameters() if parameter.requires_grad)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the unreadable images found so far and the probe's initial result."""
        checkpoint["skipped"] = self.skipped
        if self._probe is not None and self._probe_start is not None:
            checkpoint["probe_start"] = {"digest": self._probe.source.digest, "hits": self._probe_start}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the unreadable images found before and the probe's initial result.

        If the checkpoint has no result for this probe, the initial weights are probed here, since Lightning has not
        loaded the checkpoint's weights yet.
        """
        self.skipped = dict(checkpoint["skipped"])
        saved = checkpoint.get("probe_start")
        if self._probe is None or self.global_rank != 0:
            return
        if saved is not None and saved["digest"] == self._probe.source.digest:
            self._probe_start = saved["hits"]
        else:
            self._probe_start = self._probe.hits(self.objective.query.network)

    def on_train_start(self) -> None:
        """Probe the initial weights of a new run, and start measuring throughput."""
        if self._probe is not None and self._probe_start is None and self.global_rank == 0:
            self._probe_start = self._probe.hits(self.objective.query.network)
            self._log({"knn_accuracy": accuracy(self._probe_start)}, 0)
        self._throughput.start()

    def on_train_batch_start(self, batch: ViewBatch, batch_idx: int) -> None:
        """Measure the time spent waiting for the batch."""
        self._throughput.batch_arrived()

    def _is_reported(self, done: int) -> bool:
        return done % self.run_settings.log_every == 0 or done == self.schedule.steps

    def _watch(self, output: StepOutput, done: int) -> None:
        """Log metrics and run the probe if they are due after step `done` (from 1)."""
        if self._is_reported(done):
            self._report(output, done)
        every = max(1, round(self.run_settings.probe_every * self.schedule.steps_per_epoch))
        if self._probe is not None and self.global_rank == 0 and (done % every == 0 or done == self.schedule.steps):
            hits = self._probe.hits(self.objective.query.network)
            assert self._probe_start is not None
            self.probe_change = Change.between(self._probe_start, hits)
            self._log({"knn_accuracy": accuracy(hits), **self.probe_change.figures}, done)

    def _report(self, output: StepOutput, done: int) -> None:
        """Log the metrics of step `done`, computed on this process's share of the batch."""
        losses = to_host({"loss": output.loss, **{f"loss_{name}": loss for name, loss in output.losses.items()}})
        rate, waiting = self._throughput.since_last_report()
        row = {
            **losses,
            **to_host(output.monitors),
            "lr": self.schedule.peak_lr * self.schedule.factor(done - 1),
            "epoch": done / self.schedule.steps_per_epoch,
            "images_per_second": rate,
            "data_wait": waiting,
        }
        self._log(row, done)
        if self.global_rank == 0:
            for alarm in self._alarms:
                alarm.look(row, done)
        text = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self.last_report = f"{text}, {rate:.1f} images/s"
        STEPS_LOG.info("step %d/%d: %s", done, self.schedule.steps, self.last_report)

    def _log(self, figures: dict[str, float], done: int) -> None:
        for logger in self.loggers:
            logger.log_metrics(figures, step=done)


def start_from(objective: ContrastivePretraining, name: str, arch: str) -> None:
    """Load weights from the hub into both encoders; if they have no pyramid, it keeps its random initialisation.

    Raises:
        UserError: the weights do not exist, or have a different architecture.
    """
    weights = resolve(name, arch)
    for encoder in (objective.query, objective.key):
        load_into(encoder.network, weights, weights.parts)
    missing = "" if "fpn" in weights.parts else "; it has no feature pyramid, which starts at random"
    LOG.info("started from %s (%s)%s", weights.name, weights.digest, missing)


class Throughput:
    """Measures images per second and the fraction of time spent waiting for data."""

    def __init__(self) -> None:
        self._images = 0
        self._waited = 0.0
        self.start()

    def batch_arrived(self) -> None:
        """Count the time since the end of the last step as waiting for data."""
        self._waited += time.perf_counter() - self._step_ended

    def step_ended(self, images: int) -> None:
        """Count the images of a completed step."""
        self._step_ended = time.perf_counter()
        self._images += images

    def start(self) -> None:
        """Start counting."""
        self._started = self._step_ended = time.perf_counter()

    def since_last_report(self) -> tuple[float, float]:
        """Return images per second and the fraction of time spent waiting, both since the last call."""
        now = time.perf_counter()
        seconds = max(now - self._started, 1e-9)
        rate, share = self._images / seconds, min(self._waited / seconds, 1.0)
        self._started, self._images, self._waited = now, 0, 0.0
        return rate, share
