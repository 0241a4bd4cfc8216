"""Launch training processes, one per GPU, and patch Detectron2 in each before it is imported."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from torch.multiprocessing.spawn import ProcessRaisedException, start_processes

from ccop_hub.errors import UserError

from ..settings import DetectionSettings
from .engine import load_engine


def start(settings: DetectionSettings, work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(*arguments)` in one process per GPU of this machine, all in one process group, and wait for them.

    With Detectron2's own `launch`, a new process would import Detectron2 before it is patched. Processes therefore
    start in a function of this module, which patches Detectron2 and then calls its launcher.

    Args:
        settings: number of machines and GPUs, this machine's rank, and the rendezvous address.
        work: a module-level function, so that it can be pickled.
        arguments: picklable arguments of `work`.

    Raises:
        UserError: one of the processes raised it.
    """
    if settings.processes == 1:
        work(*arguments)
        return
    url = f"tcp://127.0.0.1:{_free_port()}" if settings.dist_url == "auto" else settings.dist_url
    task = (work, settings.processes, settings.devices, settings.node_rank, url, arguments)
    try:
        start_processes(_prepared, task, settings.devices, start_method="spawn")  # type: ignore[no-untyped-call]
    except ProcessRaisedException as error:
        last = str(error).strip().splitlines()[-1]
        # An exception in a child process arrives as the text of its traceback.
        if last.startswith(f"{UserError.__module__}.{UserError.__qualname__}: "):
            raise UserError(last.partition(": ")[2]) from None
        raise


def _prepared(local_rank: int, *arguments: Any) -> None:
    """Entry point of a new process: patch Detectron2, then join the group and run."""
    load_engine()
    from detectron2.engine.launch import _distributed_worker

    _distributed_worker(local_rank, *arguments)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
