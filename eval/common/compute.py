"""Lightning Fabric on one or more devices, and communication between processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ccop_hub.errors import UserError, one_line
from ccop_hub.stopping import Stopped, StopRequest

from ..settings import Precision, RunSettings
from .state_file import PlainState

T = TypeVar("T")

_LIGHTNING_PRECISION: dict[Precision | None, Any] = {
    None: "32-true",
    "float32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


def launch(settings: RunSettings) -> Fabric:
    """Start one process per device; with a single device, use the current process."""
    try:
        fabric = Fabric(
            accelerator=settings.accelerator,
            devices=settings.devices,
            precision=lightning_precision(settings),
            plugins=[PlainState()],
        )
    except Exception as error:  # for a missing device, Lightning raises its own errors, torch's or a ValueError
        where = f"--accelerator {settings.accelerator} --devices {settings.devices}"
        raise UserError(f"{where}: {one_line(error)}") from None
    if settings.precision == "fp16" and fabric.device.type != "cuda":
        raise UserError("--precision fp16 needs a CUDA GPU: use bf16, or remove the flag")
    fabric.launch()
    return fabric


def lightning_precision(settings: RunSettings) -> Any:
    """Lightning's name for the run's precision, which is also part of the key of cached features."""
    return _LIGHTNING_PRECISION[settings.precision]


def share(fabric: Fabric, count: int) -> list[int]:
    """Indices in 0..count-1 that this process handles: every world-size-th one, the order `gather_rows` expects."""
    return list(range(fabric.global_rank, count, fabric.world_size))


def gather_rows(fabric: Fabric, rows: Tensor, count: int) -> Tensor:
    """Gather the rows that the processes computed for their `share`, in order, on the CPU.

    Args:
        fabric: the processes.
        rows: (n, ...) rows that this process computed.
        count: total number of rows.
    """
    if fabric.world_size == 1:
        return rows.cpu()
    longest = -(-count // fabric.world_size)
    padding = rows.new_zeros((longest - len(rows), *rows.shape[1:]))
    gathered = fabric.all_gather(torch.cat([rows, padding]).to(fabric.device))
    assert isinstance(gathered, Tensor)
    return gathered.transpose(0, 1).reshape(-1, *rows.shape[1:])[:count].cpu()


@contextmanager
def failing_together(fabric: Fabric) -> Iterator[None]:
    """Raise a `UserError` from this block in all processes if one of them raises it.

    Otherwise the other processes would wait forever for the failed one in their next collective.
    """
    mistake = None
    try:
        yield
    except UserError as error:
        mistake = str(error)
    for rank in range(fabric.world_size):
        found = fabric.broadcast(mistake, src=rank)
        if found is not None:
            raise UserError(found)


def all_finite(fabric: Fabric, values: Tensor) -> bool:
    """Whether `values` is finite in every process. Collective: all processes must call it."""
    finite = torch.isfinite(values).all()
    if fabric.world_size == 1:
        return bool(finite)
    least = fabric.all_reduce(finite.to(fabric.device, torch.float32), reduce_op="sum")
    assert isinstance(least, Tensor)
    return int(least) == fabric.world_size


def raise_if_stopped(fabric: Fabric, request: StopRequest, save: Callable[[], None]) -> None:
    """Save and raise `Stopped` in all processes if any of them has received a stop signal. Collective.

    Args:
        fabric: the processes; all of them must call this.
        request: this process's noted signal.
        save: saves the state to resume from; collective as well.
    """
    number = request.signal or 0
    if fabric.world_size > 1:
        # The same in every process, which may have received different signals or none.
        greatest = fabric.all_gather(torch.tensor(int(number), device=fabric.device))
        assert isinstance(greatest, Tensor)
        number = int(greatest.max())
    if number:
        save()
        raise Stopped(number)


@contextmanager
def saved_if_stopped(fabric: Fabric, save: Callable[[], None]) -> Iterator[None]:
    """Save if `Stopped` is raised in the block; several processes, which it can find in different places, do not."""
    try:
        yield
    except Stopped:
        if fabric.world_size == 1:
            save()
        raise


def share_buffers(fabric: Fabric, module: nn.Module) -> None:
    """Broadcast rank 0's buffers (BN statistics), so that every process scores the network that is saved."""
    if fabric.world_size > 1:
        for buffer in module.buffers():
            buffer.copy_(fabric.broadcast(buffer))


def derived_seed(*key: int) -> int:
    """Derive a 63-bit seed for one draw from a key such as (seed, epoch, image index)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def readable(batches: Iterable[T]) -> Iterator[T]:
    """Yield a data loader's batches, re-raising a worker's `UserError` with its original one-line message."""
    try:
        yield from batches
    except UserError as error:
        line = str(error).strip().splitlines()[-1]
        raise UserError(line.rpartition("UserError: ")[2]) from None
