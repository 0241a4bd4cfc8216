"""Training processes, one a GPU: Detectron2's own, prepared before anything of Detectron2 is read in them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from torch.multiprocessing.spawn import ProcessRaisedException, start_processes

from ccop_hub.errors import UserError

from ..settings import DetectionSettings
from .engine import load_engine


def start(settings: DetectionSettings, work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(*arguments)` in each of this machine's processes and wait for them: one a GPU, all in one group.

    A new process would import Detectron2's own `launch` before it could be prepared for the version that is here, so
    that it starts at a function of this module, which then hands over to Detectron2's.

    Args:
        settings: how many machines and GPUs, which machine this is, and where they meet.
        work: function of a module, so that a new process finds it.
        arguments: that can be pickled.

    Raises:
        UserError: what one of the processes raised as such.
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
        # Another process's exception arrives as the text of its traceback.
        if last.startswith(f"{UserError.__module__}.{UserError.__qualname__}: "):
            raise UserError(last.partition(": ")[2]) from None
        raise


def _prepared(local_rank: int, *arguments: Any) -> None:
    """A new process: prepare Detectron2, then join the group and work."""
    load_engine()
    from detectron2.engine.launch import _distributed_worker

    _distributed_worker(local_rank, *arguments)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
