"""Recognise errors that say that another process of the command died or cannot be reached."""

from __future__ import annotations

import re
import sys

from ..errors import one_line

_LOADER = re.compile(r"DataLoader worker \(pid.*?\d\) (?:is )?(killed by signal: [A-Za-z ]+|exited unexpectedly)")
"""How torch reports the death of a data-loading process (torch 2.11 to 2.14, DataLoader.cpp and dataloader.py)."""


def lost_process(error: RuntimeError) -> str | None:
    """Return one line for an error about a process that died or cannot be reached; None for any other error."""
    from concurrent.futures import BrokenExecutor  # the help does without

    said = str(error)
    loader = _LOADER.search(said)
    if loader or isinstance(error, BrokenExecutor):
        how = f" ({loader[1].strip()})" if loader else ""
        return f"a worker process died{how}, probably out of memory; use fewer --workers or smaller images"
    distributed = sys.modules.get("torch.distributed")
    if "gloo" in said or (distributed is not None and isinstance(error, getattr(distributed, "DistError", ()))):
        reason = one_line(_without_place(said))
        return f"the other processes of this run cannot be reached, see what they printed ({reason})"
    return None


def _without_place(said: str) -> str:
    """Return an error of gloo without the place in its source, `[/path/pair.cc:561] `, that it starts with."""
    return re.sub(r"^\[[^\]]*\]\s*", "", said)
