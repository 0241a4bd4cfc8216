"""Features that are computed once: on disk under what they depend on, memory-mapped, resumable, over many devices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]
from lightning.fabric import Fabric
from numpy.lib.format import open_memmap
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ccop_hub.files import bytes_digest, replacing, write_atomically
from ccop_hub.sources.cache import cache_root

from ..common.compute import readable
from ..common.images import SeededImages

FEATURES_FOLDER = "features"
FEATURES_FILE = "features.npy"
CHUNK = 2048
"""Items computed between two states that an interrupted run goes on from."""


def cached_features(
    fabric: Fabric,
    cache: Path | None,
    identity: dict[str, Any],
    rows: Sequence[int],
    compute: Callable[[Sequence[int]], Iterable[Tensor]],
) -> np.ndarray:
    """The features of all items, from the cache where they are there, else computed and put there.

    Items are computed in chunks, a chunk a file, chunks dealt out over the processes; chunks that an interrupted run
    left are kept. Rank 0 then joins them into one array. Another evaluation that wants the same features waits for
    them.

    Args:
        fabric: the processes; all of them call this.
        cache: folder of all features; `features` in the cache root if None.
        identity: everything the features depend on (weights digest, data digest, transform, ...), as JSON values.
        rows: feature rows of each item (1 where an item is an image, the box count where it is an image's boxes).
        compute: yields (n, D) float tensors whose rows are those of the given items, in order.

    Returns:
        Read-only memory map (sum(rows), D) float32.
    """
    canonical = json.dumps(identity, sort_keys=True)
    folder = (cache or cache_root() / FEATURES_FOLDER) / bytes_digest(canonical.encode()).partition(":")[2][:32]
    file, parts = folder / FEATURES_FILE, folder / "chunks"
    with _alone(fabric, folder.with_suffix(".lock")):
        if fabric.broadcast(not file.exists()):
            parts.mkdir(parents=True, exist_ok=True)
            chunks = [list(range(start, min(start + CHUNK, len(rows)))) for start in range(0, len(rows), CHUNK)]
            for number in range(fabric.global_rank, len(chunks), fabric.world_size):
                _compute_chunk(parts / f"{number:06d}.npy", chunks[number], rows, compute)
            fabric.barrier()
            if fabric.global_rank == 0:
                _join(parts, len(chunks), file)
                document = json.dumps(identity, sort_keys=True, indent=2) + "\n"
                write_atomically(folder / "identity.json", document)
                shutil.rmtree(parts)
            fabric.barrier()
    features: np.ndarray = np.load(file, mmap_mode="r")
    return features


@contextmanager
def _alone(fabric: Fabric, lock: Path) -> Iterator[None]:
    """No other evaluation is in here with the same lock; rank 0 holds it for all processes of this one."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock) if fabric.global_rank == 0 else nullcontext():
        fabric.barrier()
        yield


def image_features(
    fabric: Fabric,
    paths: list[Path],
    transform: Callable[[Any], Tensor],
    network: Callable[[Tensor], Tensor],
    batch_size: int,
    workers: int,
) -> Callable[[Sequence[int]], Iterable[Tensor]]:
    """A `compute` for `cached_features`: one feature row an image.

    Args:
        fabric: the processes.
        paths: the items.
        transform: image -> (3, H, W) uint8 tensor, one size for all.
        network: (N, 3, H, W) images on the 0-255 scale -> (N, D) features, on the process's device.
        batch_size: images a forward pass of one process.
        workers: data-loading processes.
    """
    images = SeededImages(paths, transform)

    def compute(items: Sequence[int]) -> Iterable[Tensor]:
        loader = DataLoader(Subset(images, items), batch_size=batch_size, num_workers=workers)
        for batch, _ in readable(loader):
            with torch.no_grad(), fabric.autocast():
                yield network(fabric.to_device(batch)).float().cpu()

    return compute


def _compute_chunk(
    file: Path, items: list[int], rows: Sequence[int], compute: Callable[[Sequence[int]], Iterable[Tensor]]
) -> None:
    if file.exists():
        return
    computed = torch.cat(list(compute(items))).numpy().astype(np.float32, copy=False)
    expected = sum(rows[item] for item in items)
    if len(computed) != expected:
        raise RuntimeError(f"{len(computed)} feature rows where {expected} belong")
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, computed)


def _join(parts: Path, count: int, file: Path) -> None:
    chunks = [np.load(parts / f"{number:06d}.npy", mmap_mode="r") for number in range(count)]
    shape = (sum(len(chunk) for chunk in chunks), chunks[0].shape[1])
    with replacing(file) as temporary:
        joined = open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        start = 0
        for chunk in chunks:
            joined[start : start + len(chunk)] = chunk
            start += len(chunk)
        joined.flush()
