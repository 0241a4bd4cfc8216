"""What a run will need: disk space and memory before it starts, and the remaining time while it runs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.func import functional_call

from ccop_hub.progress import Progress, duration

from ..common.process_memory import memory_in_use, resident_memory
from ..estimates import Cost, Power, checkpoints, energy, listing_memory, shortages, size
from ..method.objective import ContrastivePretraining
from ..method.pooling import POOLED_SIDE
from ..settings import RunSettings
from .pace import Pace

LOG = logging.getLogger("ccop_pretrain.training.forecast")


class Forecast(Callback):
    """Shows the progress and the remaining time, and logs an estimate once the first steps have been measured.

    Args:
        steps: total steps of the run.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._pace = Pace()
        self._progress: Progress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the progress bar, or print the first line."""
        if trainer.is_global_zero:
            self._progress = Progress("training", self._steps, trainer.global_step, unit="steps")
            self._progress.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step; log the estimate when enough steps have been measured."""
        if self._progress is None:
            return
        self._progress.advance(getattr(pl_module, "last_report", ""))
        if self._pace.step_ended():
            assert self._pace.seconds is not None
            left = self._steps - trainer.global_step
            if left > 0:
                LOG.info("%s", described(trainer, pl_module, left, self._pace.seconds))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the progress bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the progress bar."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None


def described(trainer: Trainer, module: LightningModule, left: int, step_seconds: float) -> str:
    """Describe in one line what the remaining steps need, from the measured duration of a step."""
    seconds = left * step_seconds
    gpus = trainer.num_devices * trainer.num_nodes if module.device.type == "cuda" else 0
    cores = torch.get_num_threads() * (1 if gpus else trainer.world_size)
    kwh = Power().kwh(seconds, cores, gpus)
    memory = size(memory_in_use())
    if gpus:
        memory += f" and {size(torch.cuda.max_memory_reserved())} of GPU memory"
    processes = " in each process" if trainer.world_size > 1 else ""
    return (
        f"estimate: {duration(seconds)} for the remaining {left} steps ({step_seconds:.3g} s per step), {memory} of "
        f"memory{processes}, about {energy(kwh)}"
    )


def cost_before_start(
    settings: RunSettings,
    objective: ContrastivePretraining,
    steps: int,
    images: int,
    boxes_in_store: float,
    boxes_in_view: float,
) -> Cost:
    """Estimate the memory and disk space of a process from the settings, without running a step; the time is unknown.

    Args:
        settings: settings of the run.
        objective: the objective, with its weights and queues.
        steps: total steps of the run.
        images: number of images.
        boxes_in_store: mean number of proposals per image.
        boxes_in_view: expected number of boxes per view.
    """
    devices = settings.devices if isinstance(settings.devices, int) else 1
    batch = max(1, settings.batch_size // (devices * settings.num_nodes * settings.micro_batches))
    half = 1 if settings.precision == "float32" else 2
    trained = _bytes(parameter for parameter in objective.parameters() if parameter.requires_grad)
    moments = trained * (2 if settings.optimizer == "adamw" else 1)
    model = _bytes([*objective.parameters(), *objective.buffers()])
    activations = saved_bytes(objective.query, batch, settings.image_size) // half
    if settings.activation_checkpointing:
        activations //= 4
    step = model + trained + moments + activations
    if settings.uses_boxes:
        # Pooled features of each box in the query view, and of each box and its jittered copies in the key view.
        channels = objective.query.network.channels["p2"]
        pooled = channels * POOLED_SIDE**2 * 4
        step += round(batch * boxes_in_view * pooled * (2 + settings.jitters))
    listing = listing_memory(images, boxes_in_store)
    exported = _bytes(objective.query.network.state_dict().values())
    disk = checkpoints(steps, settings.save_every) * (model + moments) + exported
    on_gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    memory = resident_memory() + listing + (0 if on_gpu else step)
    return Cost(0.0, memory, step if on_gpu else 0, disk, 0.0)


def warn_before_start(cost: Cost, out: Path) -> list[str]:
    """Return a warning for each resource of which the run needs more than this machine has."""
    gpu = torch.cuda.get_device_properties(0).total_memory if cost.device_memory else 0
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) if out.exists() else 0
    return shortages({"the run": dataclasses.replace(cost, disk=max(0, cost.disk - written))}, out, gpu)


def saved_bytes(encoder: nn.Module, images: int, side: int) -> int:
    """Count the activations that a forward pass keeps for the backward pass, in float32, without computing them.

    Args:
        encoder: takes (images, 3, side, side) float32.
        images: number of images.
        side: side of the images in pixels.
    """
    meta = {name: value.detach().to("meta") for name, value in encoder.state_dict().items()}
    for name, parameter in encoder.named_parameters():
        meta[name].requires_grad_(parameter.requires_grad)
    weights = {value.untyped_storage()._cdata for value in meta.values()}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    pixels = torch.zeros(images, 3, side, side, device="meta")
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = functional_call(encoder, meta, (pixels,))
    del output
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
