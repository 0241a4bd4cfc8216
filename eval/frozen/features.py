"""Feature cache: keyed by everything the features depend on, memory-mapped, resumable and multi-device."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.lib.format import open_memmap, write_array_header_1_0
from torch import Tensor
from torch.utils.data import Subset

from ccop_hub.errors import UserError
from ccop_hub.files import (
    bytes_digest,
    check_replaceable,
    file_digest,
    make_folder,
    remove_temporary_files,
    replacing,
    write_atomically,
)
from ccop_hub.locks import waiting_lock
from ccop_hub.progress import Progress
from ccop_hub.readers import Reader
from ccop_hub.regular_files import open_regular, read_text
from ccop_hub.sources.cache import cache_root

from ..common.compute import failing_together, readable
from ..common.images import SeededImages

FEATURES_FOLDER = "features"
FEATURES_FILE = "features.npy"
DIGEST_FILE = "features.sha256"
IDENTITY_FILE = "identity.json"
CHUNK = 2048
"""Images per chunk file; an interruption loses at most this many per process."""


def cached_features(
    fabric: Fabric,
    cache: Path | None,
    identity: dict[str, Any],
    paths: Sequence[Path],
    rows: Sequence[int],
    compute: Callable[[Sequence[int]], Iterable[Tensor]],
) -> np.ndarray:
    """Load the features of all images from the cache, or compute and cache them if missing or corrupt.

    Features are computed in chunks, one file each, distributed over the processes; an interrupted run's chunks are
    reused. Rank 0 then joins them into one array. Other evaluations that need the same features wait for them.

    Args:
        fabric: the processes; all of them must call this.
        cache: the feature cache's folder; None is `features` in the cache root.
        identity: the cache key: all that the features depend on (weights, data, transform, ...), as JSON values.
        paths: the images.
        rows: number of feature rows per image (1, or its number of boxes).
        compute: takes image indices and yields (n, D) float tensors with those images' rows, in order.

    Returns:
        Read-only memory map (sum(rows), D) float32, all finite.

    Raises:
        UserError: a feature is NaN or infinite, or the cache cannot be written.
    """
    canonical = json.dumps(identity, sort_keys=True)
    folder = (cache or cache_root() / FEATURES_FOLDER) / bytes_digest(canonical.encode()).partition(":")[2][:32]
    file, parts = folder / FEATURES_FILE, folder / "chunks"
    with _alone(fabric, folder.with_suffix(".lock")):
        if fabric.broadcast(fabric.global_rank == 0 and not _is_whole(folder, sum(rows))):
            _require_replaceable(folder)
            make_folder(parts)
            chunks = [range(start, min(start + CHUNK, len(rows))) for start in range(0, len(rows), CHUNK)]
            mine = range(fabric.global_rank, len(chunks), fabric.world_size)
            total = sum(sum(rows[item] for item in chunks[number]) for number in mine)
            unit = "images" if all(count == 1 for count in rows) else "boxes"
            shown = Progress("computing features", total, unit=unit) if fabric.global_rank == 0 else None
            with failing_together(fabric), shown or nullcontext():
                for number in mine:
                    _compute_chunk(parts / f"{number:06d}.npy", chunks[number], paths, rows, compute, shown)
            if fabric.global_rank == 0:
                write_atomically(folder / IDENTITY_FILE, json.dumps(identity, sort_keys=True, indent=2) + "\n")
                _join([parts / f"{number:06d}.npy" for number in range(len(chunks))], file)
            fabric.barrier()
        if fabric.global_rank == 0:  # of this run, or of one that was killed after the features were complete
            with suppress(OSError):
                remove_temporary_files(folder)
            shutil.rmtree(parts, ignore_errors=True)
    return _mapped(file)


def _require_replaceable(folder: Path) -> None:
    """Check, before the features are computed, that nothing else is where their files will be."""
    for name in (FEATURES_FILE, DIGEST_FILE, IDENTITY_FILE):
        check_replaceable(folder / name)
        if (folder / name).is_dir():
            raise UserError(f"cannot write {folder / name}: it is a folder; remove it, or give another --cache")


@contextmanager
def _alone(fabric: Fabric, lock: Path) -> Iterator[None]:
    """Lock out other evaluations; rank 0 holds the lock for all processes of this one."""
    try:
        make_folder(lock.parent)
    except UserError as error:
        raise UserError(f"{error}, or give another --cache") from None
    with waiting_lock(lock, "computes the same features") if fabric.global_rank == 0 else nullcontext():
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
    """Make a `compute` function for `cached_features` with one feature row per image.

    Args:
        fabric: the processes.
        paths: the images.
        transform: image -> (3, H, W) uint8 tensor of a fixed size.
        network: (N, 3, H, W) images on the 0-255 scale -> (N, D) features, on the process's device.
        batch_size: images per forward pass and process.
        workers: number of data-loading processes.
    """
    images = SeededImages(paths, transform)

    def compute(items: Sequence[int]) -> Iterable[Tensor]:
        loader = Reader(Subset(images, items), batch_size=batch_size, num_workers=workers)
        for batch, _ in readable(loader):
            with torch.no_grad(), fabric.autocast():
                yield network(fabric.to_device(batch)).float().cpu()

    return compute


def require_finite(features: Tensor, what: object) -> None:
    """Raise a `UserError` that names `what` was encoded unless all features are finite."""
    if not torch.isfinite(features).all():
        raise UserError(
            f"the features of {what} are not finite (NaN or infinity): the weights are damaged or diverged, or half "
            "precision overflows; use other weights, or --precision float32"
        )


def _is_whole(folder: Path, rows: int) -> bool:
    """Whether a folder contains exactly `rows` rows of features, unchanged since they were written."""
    file, digest = folder / FEATURES_FILE, folder / DIGEST_FILE
    if not file.exists():
        return False
    features = _load(file, rows)
    # Features written by earlier versions have no digest.
    if features is not None and (not digest.exists() or _recorded(digest) == file_digest(file)):
        return True
    print(f"the features in {folder} are damaged: computing them again", file=sys.stderr, flush=True)
    return False


def _load(file: Path, rows: int) -> np.ndarray | None:
    """Memory-map a feature file; None if it is not (rows, D) finite float32."""
    try:
        features = _mapped(file)
    except (OSError, ValueError, EOFError):
        return None
    if features.ndim != 2 or features.dtype != np.float32 or len(features) != rows:
        return None
    blocks = (features[start : start + CHUNK] for start in range(0, rows, CHUNK))
    return features if all(np.isfinite(block).all() for block in blocks) else None


def _mapped(file: Path) -> np.ndarray:
    """Memory-map an array, read-only; only numbers, since objects would be unpickled.

    Raises:
        OSError, ValueError, EOFError: the file is not regular, or not a complete array of numbers.
    """
    open_regular(file).close()
    features: np.ndarray = open_memmap(file, mode="r")  # unlike np.load, opens neither archives nor pickles
    return features


def _recorded(digest: Path) -> str | None:
    try:
        return read_text(digest).strip()
    except (OSError, UnicodeDecodeError):
        return None


def _compute_chunk(
    file: Path,
    items: range,
    paths: Sequence[Path],
    rows: Sequence[int],
    compute: Callable[[Sequence[int]], Iterable[Tensor]],
    progress: Progress | None,
) -> None:
    """Compute the features of some images and write them to `file`, unless an interrupted run already did."""
    expected = sum(rows[item] for item in items)
    if _load(file, expected) is not None:
        if progress is not None:
            progress.advance(count=expected)
        return
    computed_parts = []
    for part in compute(items):
        computed_parts.append(part)
        if progress is not None:
            progress.advance(count=len(part))
    computed = torch.cat(computed_parts).float()
    if len(computed) != expected:
        raise RuntimeError(f"{len(computed)} feature rows, expected {expected}")
    start = 0
    for item in items:
        require_finite(computed[start : start + rows[item]], paths[item])
        start += rows[item]
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, computed.numpy())


def _join(chunks: Sequence[Path], file: Path) -> None:
    """Concatenate all chunks into one file, and write its digest before it gets its final name."""
    arrays = [_mapped(chunk) for chunk in chunks]
    if any(array.shape[1] != arrays[0].shape[1] for array in arrays):
        folder = chunks[0].parent
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"the features in {folder} have different sizes; they are removed: run the command again")
    shape = (sum(map(len, arrays)), arrays[0].shape[1])
    # Written, not memory-mapped: on a full disk, a write raises, but a store to a mapped page kills the process.
    with replacing(file) as temporary:
        with temporary.open("wb") as stream:
            write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for array in arrays:
                stream.write(np.ascontiguousarray(array, dtype="<f4").data)
        write_atomically(file.with_name(DIGEST_FILE), file_digest(temporary) + "\n")
