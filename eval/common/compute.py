"""Lightning Fabric on one device or many, and what processes exchange."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ccop_hub.errors import UserError, one_line

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
    """Start the processes that `settings` asks for; with one device, the current process is the only one."""
    try:
        fabric = Fabric(
            accelerator=settings.accelerator,
            devices=settings.devices,
            precision=lightning_precision(settings),
            plugins=[PlainState()],
        )
    except Exception as error:  # Lightning raises its own, torch's and plain ValueErrors for a missing device
        where = f"--accelerator {settings.accelerator} --devices {settings.devices}"
        raise UserError(f"{where}: {one_line(error)}") from None
    if settings.precision == "fp16" and fabric.device.type != "cuda":
        raise UserError("--precision fp16 needs a CUDA GPU: use bf16, or remove the flag")
    fabric.launch()
    return fabric


def lightning_precision(settings: RunSettings) -> Any:
    """Lightning's name of the run's precision, which also names it in the identity of cached features."""
    return _LIGHTNING_PRECISION[settings.precision]


def share(fabric: Fabric, count: int) -> list[int]:
    """Indices 0..count-1 that this process handles: every world-size-th one, so that `gather_rows` can order them."""
    return list(range(fabric.global_rank, count, fabric.world_size))


def gather_rows(fabric: Fabric, rows: Tensor, count: int) -> Tensor:
    """Gather the rows that each process computed for its `share`: all of them, in order, on the CPU.

    Args:
        fabric: the processes.
        rows: (n, ...) rows of this process's share.
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
    """A block that ends with the same `UserError` in all processes if one of them raises it.

    Without it, the other processes would wait for the failed one in their next collective.
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
    """Whether `values` is finite in every process; all of them call this and get the same answer."""
    finite = torch.isfinite(values).all()
    if fabric.world_size == 1:
        return bool(finite)
    least = fabric.all_reduce(finite.to(fabric.device, torch.float32), reduce_op="sum")
    assert isinstance(least, Tensor)
    return int(least) == fabric.world_size


def share_buffers(fabric: Fabric, module: nn.Module) -> None:
    """Give every process rank 0's buffers (BN statistics), so that all score the network that is saved."""
    if fabric.world_size > 1:
        for buffer in module.buffers():
            buffer.copy_(fabric.broadcast(buffer))


def derived_seed(*key: int) -> int:
    """A 63-bit seed for one draw, derived from a key such as (seed, epoch, image index)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def readable(batches: Iterable[T]) -> Iterator[T]:
    """The batches of a data loader; a `UserError` from a worker process keeps its one-line message."""
    try:
        yield from batches
    except UserError as error:
        line = str(error).strip().splitlines()[-1]
        raise UserError(line.rpartition("UserError: ")[2]) from None
