"""Compile the search kernels with Numba, with shared options and a cache that many processes can share.

Kernels only use integers, or single IEEE operations in a fixed order, so that results depend neither on the processor
nor on the number of workers. `fastmath` stays off; without it, LLVM neither reorders sums nor fuses multiply and add
(FMA).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import binding

from ccop_hub.files import bytes_digest
from ccop_hub.locks import LOCK_FILE, waiting_lock
from ccop_hub.sources.cache import cache_root

Function = TypeVar("Function", bound=Callable[..., Any])

COMPILE_SECONDS = 30  # approximate, on one core; only shown to the user
FOLDER_VARIABLE = "NUMBA_CACHE_DIR"
_KERNELS = ("colour_spaces", "segmentation", "texture", "regions", "heap", "grouping")
_COMPLETE = "complete"


def kernel(signature: str) -> Callable[[Function], Function]:
    """Compile a function for the given types at import time, or load it from the cache."""
    compiled: Callable[[Function], Function] = numba.njit(signature, cache=True, error_model="numpy")
    return compiled


def inlined(function: Function) -> Function:
    """Make a function callable from kernels, by inlining it into each."""
    compiled: Function = numba.njit(error_model="numpy")(function)
    return compiled


def is_compiled() -> bool:
    """Return whether the cache contains every kernel."""
    return (_folder() / _COMPLETE).exists()


@functools.cache
def load_kernels() -> None:
    """Import the kernel modules, compiling kernels that are not in the cache.

    The cache is `$NUMBA_CACHE_DIR`, or else `kernels` in the cache root. If that is not writable, this process and its
    children use a temporary folder. If several processes start at once, one compiles and the others wait.
    """
    folder = _folder()
    if not _is_writable(folder):
        root = tempfile.mkdtemp(prefix="ccop-kernels-")
        os.environ[FOLDER_VARIABLE] = root  # inherited by worker processes
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        folder = _folder()
        folder.mkdir()
    if (folder / _COMPLETE).exists():
        _import_kernels(folder)
        return
    with waiting_lock(folder / LOCK_FILE, "compiles the same functions"):
        _import_kernels(folder)
        (folder / _COMPLETE).touch()


def _folder() -> Path:
    """Return the cache folder for this installation, these library versions and this processor."""
    given = os.environ.get(FOLDER_VARIABLE)
    root = Path(given) if given else cache_root() / "kernels"
    paths = [Path(__file__).with_name(f"{name}.py") for name in (*_KERNELS, "compilation")]
    sources = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths]
    processor = (binding.get_process_triple(), binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())
    versions = (sys.implementation.cache_tag, numba.__version__)
    return root / bytes_digest(repr((sources, processor, versions)).encode()).partition(":")[2][:16]


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _import_kernels(folder: Path) -> None:
    with _numba_cache(folder):
        for name in _KERNELS:
            importlib.import_module(f"{__package__}.{name}")


@contextlib.contextmanager
def _numba_cache(folder: Path) -> Iterator[None]:
    # Numba reads the folder when a function is decorated. Restore it afterwards for other users of Numba.
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
