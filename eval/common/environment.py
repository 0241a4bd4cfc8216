"""Package versions and hardware of a run."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from ccop_hub.cores import available_cores

RECORDED_PACKAGES = ("ccop-hub", "torch", "torchvision", "timm", "lightning", "numpy")


def versions(*further: str) -> dict[str, str]:
    """Versions of Python, the packages that every evaluation uses, and any `further` packages that are installed."""
    found = {"python": platform.python_version()}
    for package in (*RECORDED_PACKAGES, *further):
        try:
            found[package.replace("-", "_")] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware(devices: int = 1, accelerator: str | None = None) -> dict[str, Any]:
    """Describe the processor, the cores available to this process, and the devices used.

    Args:
        devices: number of processes.
        accelerator: `cuda`, `cpu`, ...; detected if None.
    """
    import torch

    on_cuda = torch.cuda.is_available() if accelerator is None else accelerator == "cuda"
    device = torch.cuda.get_device_name(0) if on_cuda else "cpu"
    return {
        "device": device,
        "devices": devices,
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(terse=True),
    }
