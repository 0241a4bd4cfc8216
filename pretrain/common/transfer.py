"""Copies between the CPU and a GPU that wait as little as possible."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; to a GPU, through page-locked memory, so that the copy joins the queue of kernels."""
    if device.type != "cuda" or values.device.type != "cpu" or not torch.cuda.is_available():
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def to_host(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Read 0-d tensors of any device; waits for each device once, not once for each value."""
    read: dict[str, float] = {}
    for device in {value.device for value in values.values()}:
        names = [name for name, value in values.items() if value.device == device]
        read |= zip(names, torch.stack([values[name].float() for name in names]).tolist(), strict=True)
    return {name: read[name] for name in values}
