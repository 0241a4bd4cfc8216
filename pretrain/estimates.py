"""Estimate the time, memory, disk space and energy of proposals, pre-training and evaluation from measured rates."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ccop_hub.validation import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Validated

CORE_WATTS = 12.0
"""Power of a busy processor core: the default of the Green Algorithms calculator (Lannelongue et al., 2021)."""

GPU_WATTS = 400.0
"""Power of a busy GPU: the maximum of an A100 SXM (NVIDIA's data sheet)."""

SCALING = 0.9
"""Speed of several devices as a fraction of their number times one device's (Goyal et al., 2017, up to 256 GPUs)."""

EVALUATION_PASSES = 12
"""Passes over the labelled images: ten epochs of the linear probe, its final scoring, and kNN."""

MOST_CHECKPOINTS = 3
"""Checkpoints on the disk at the same time: the two that are kept, and the one being written."""

FEATURE_COPIES = 2
"""Copies of all features in memory in kNN: as they are read, and normalised."""

BYTES_A_BOX = 16
BYTES_AN_IMAGE = 80
"""Memory of a run for each image: its name and the place of its boxes, in addition to `BYTES_A_BOX`."""


@dataclass(frozen=True, kw_only=True)
class Rates(Validated):
    """What a machine needs for each unit of work. Times are wall-clock seconds, sizes are bytes.

    Args:
        cores: number of processor cores.
        gpu: whether the devices are GPUs; without, all cores together are one device.
        search_seconds: time of the search for one image, on one core.
        search_memory: memory of one process that searches, in addition to `search_base`.
        search_disk: disk space of one image's proposals.
        search_start: time that the search takes to start.
        search_base: memory of the main process of a search; 0 if not measured, and then taken to be `search_memory`.
        boxes: mean number of proposals per image.
        start_seconds: time that training and evaluation programs take to start.
        step_seconds: time of a training step of one device with its share of the batch, including the images.
        run_memory: main memory of a training process and its data-loading processes, without the list of images.
        device_memory: memory of the GPU; 0 without one.
        checkpoint_disk: size of a checkpoint.
        export_disk: size of the exported network.
        feature_seconds: time of reading an image and computing its features, on one device.
        feature_memory: main memory of an evaluation and its data-loading processes.
        feature_dim: dimension of an image's features.
    """

    TOPIC: ClassVar[str] = "Rates"

    cores: PositiveInt
    gpu: bool
    search_seconds: PositiveFloat
    search_memory: NonNegativeInt
    search_disk: NonNegativeFloat
    boxes: NonNegativeFloat
    start_seconds: NonNegativeFloat
    step_seconds: PositiveFloat
    run_memory: NonNegativeInt
    device_memory: NonNegativeInt
    checkpoint_disk: NonNegativeInt
    export_disk: NonNegativeInt
    feature_seconds: PositiveFloat
    feature_memory: NonNegativeInt
    feature_dim: PositiveInt
    search_start: NonNegativeFloat = 0.0
    search_base: NonNegativeInt = 0


@dataclass(frozen=True)
class Power:
    """Power draw in watts.

    Attributes:
        core: a busy processor core.
        gpu: a busy GPU.
    """

    core: float = CORE_WATTS
    gpu: float = GPU_WATTS

    def kwh(self, seconds: float, cores: int, gpus: int = 0) -> float:
        """Compute the energy of cores and GPUs that are busy for some seconds, in kWh."""
        return seconds * (cores * self.core + gpus * self.gpu) / 3.6e6


@dataclass(frozen=True)
class Cost:
    """What a part of the work needs.

    Attributes:
        seconds: wall-clock time.
        memory: main memory of a machine, in bytes.
        device_memory: memory of each GPU, in bytes; 0 without one.
        disk: bytes on the disk.
        kwh: energy in kWh.
    """

    seconds: float
    memory: int
    device_memory: int
    disk: int
    kwh: float


def proposals_cost(rates: Rates, images: int, workers: int, power: Power) -> Cost:
    """Estimate the search of all images by `workers` processes on one machine, of which each core runs one at a time.

    A single worker is the main process itself.
    """
    busy = min(workers, rates.cores)
    seconds = rates.search_start + images * rates.search_seconds / busy
    base = rates.search_base or (rates.search_memory if workers > 1 else 0)
    memory = base + workers * rates.search_memory
    return Cost(seconds, memory, 0, round(images * rates.search_disk), power.kwh(seconds, busy))


def run_cost(
    rates: Rates,
    images: int,
    steps: int,
    devices: int,
    power: Power,
    *,
    boxes: bool,
    save_every: int,
    scaling: float = SCALING,
) -> Cost:
    """Estimate a run.

    Args:
        rates: the rates; a step is one device's share of a batch.
        images: number of images.
        steps: number of steps.
        devices: number of devices; without GPUs, each is a machine of its own.
        power: power draw.
        boxes: whether the run reads proposals.
        save_every: steps between checkpoints.
        scaling: speed of several devices, as a fraction of their number times one device's.
    """
    seconds = rates.start_seconds + steps * rates.step_seconds / (scaling if devices > 1 else 1)
    listing = listing_memory(images, rates.boxes if boxes else 0)
    here = devices if rates.gpu else 1
    memory = here * (rates.run_memory + listing)
    disk = checkpoints(steps, save_every) * rates.checkpoint_disk + rates.export_disk
    return Cost(seconds, memory, rates.device_memory, disk, _kwh(rates, seconds, devices, power))


def evaluation_cost(
    rates: Rates, images: int, passes: float, devices: int, power: Power, scaling: float = SCALING
) -> Cost:
    """Estimate a linear probe and kNN on `images` labelled images, which are read `passes` times in all."""
    speed = devices * scaling if devices > 1 else 1
    seconds = 2 * rates.start_seconds + images * passes * rates.feature_seconds / speed
    here = devices if rates.gpu else 1
    disk = images * rates.feature_dim * 4
    memory = here * rates.feature_memory + FEATURE_COPIES * disk
    return Cost(seconds, memory, 0, disk, _kwh(rates, seconds, devices, power))


def checkpoints(steps: int, save_every: int) -> int:
    """Return the largest number of checkpoints on the disk at the same time."""
    return min(MOST_CHECKPOINTS, -(-steps // save_every))


def listing_memory(images: int, boxes: float) -> int:
    """Estimate the memory of a run's list of images, with `boxes` proposals each, in bytes."""
    return round(images * (BYTES_AN_IMAGE + boxes * BYTES_A_BOX))


def _kwh(rates: Rates, seconds: float, devices: int, power: Power) -> float:
    """Energy of the devices: GPUs share the cores of one machine, and other devices are whole machines."""
    return power.kwh(seconds, rates.cores, devices) if rates.gpu else power.kwh(seconds, rates.cores * devices)


def shortages(costs: Mapping[str, Cost], out: Path, device_memory: int = 0) -> list[str]:
    """Return a warning for each resource of this machine of which the work needs more than there is.

    Args:
        costs: cost of each part; parts share the disk, and do not run at the same time.
        out: folder of the results, which need not exist.
        device_memory: memory of a GPU of this machine in bytes; 0 checks none.
    """
    warnings = []
    there, free = total_memory(), free_disk(out)
    for name, cost in costs.items():
        if there and cost.memory > there:
            warnings.append(
                f"{name} needs about {size(cost.memory)} of memory, this machine has {size(there)}: use fewer "
                "--workers, or a smaller --batch-size"
            )
        if device_memory and cost.device_memory > device_memory:
            warnings.append(
                f"{name} needs about {size(cost.device_memory)} of GPU memory, this GPU has {size(device_memory)}: use "
                "--micro-batches, --precision bf16 or a smaller --batch-size"
            )
    disk = sum(cost.disk for cost in costs.values())
    if disk > free:
        names = " and ".join(costs)
        warnings.append(
            f"{names} need{'s' if len(costs) == 1 else ''} about {size(disk)} of disk space, {out} has {size(free)}: "
            "free some, or use a folder on another disk"
        )
    return warnings


def total_memory() -> int:
    """Return the memory that this process may use, in bytes: the machine's or its control group's; 0 if unknown."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return there
    return min(there, int(limit)) if limit.isdigit() else there


def free_disk(folder: Path) -> int:
    """Return the free space in bytes on the disk of a folder, which need not exist."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


def size(count: float) -> str:
    """Format a number of bytes in powers of 1000: `4.2 GB`, `310 MB`."""
    for unit in ("TB", "GB", "MB"):
        scale = {"TB": 1e12, "GB": 1e9, "MB": 1e6}[unit]
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def energy(kwh: float) -> str:
    """Format an energy: `3.2 kWh`, `15 Wh`."""
    return f"{kwh:.3g} kWh" if kwh >= 1 else f"{1000 * kwh:.3g} Wh"
