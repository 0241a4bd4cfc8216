"""Training output: one live line on a terminal, a few lines otherwise; everything else goes to a log file."""

from __future__ import annotations

import contextlib
import datetime
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage

from ccop_hub.files import check_replaceable, make_folder

LOG_FILE = "log.txt"

_CHATTY = ("detectron2", "fvcore", "py.warnings", "torch.fx._symbolic_trace")
"""Loggers redirected to the file; the last one is for a deprecated torch name that official main uses."""

_REPORTS = 20
"""Number of progress lines per training run without a terminal."""

_LOSSES = {
    "rpn": ("loss_rpn_cls", "loss_rpn_loc"),
    "class": ("loss_cls",),
    "box": ("loss_box_reg",),
    "mask": ("loss_mask",),
}
"""Displayed loss -> Detectron2's losses that it sums."""


class Progress(EventWriter):  # type: ignore[misc]
    """Prints iteration, losses, speed and ETA: updated in place on a terminal, otherwise in about twenty lines."""

    def __init__(self, iterations: int) -> None:
        self._iterations = iterations
        self._terminal = sys.stdout.isatty()
        self._period = 1 if self._terminal else max(1, iterations // _REPORTS)
        self._next = 0
        self._printed = 0

    def write(self) -> None:
        """Print a line if one is due (called by Detectron2 every 20 iterations and at the end)."""
        storage = get_event_storage()
        done = min(storage.iter + 1, self._iterations)
        histories = storage.histories()
        due = self._next <= done or done == self._iterations
        if not due or done == self._printed or "total_loss" not in histories or "time" not in histories:
            return
        self._next, self._printed = done + self._period, done
        seconds = histories["time"].median(1000)
        remaining = datetime.timedelta(seconds=int(seconds * (self._iterations - done)))
        parts = [
            f"{name} {sum(histories[loss].median(20) for loss in losses):.3f}"
            for name, losses in _LOSSES.items()
            if all(loss in histories for loss in losses)
        ]
        line = (
            f"iteration {done:>6} of {self._iterations}  loss {histories['total_loss'].median(20):.3f} "
            f"({', '.join(parts)})  {1 / seconds:.2f} it/s  ETA {remaining}"
        )
        last = done == self._iterations
        print(
            f"\r\x1b[2K{line}" if self._terminal else line, end="\n" if last or not self._terminal else "", flush=True
        )

    def close(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def logs_in(folder: Path) -> Iterator[None]:
    """Redirect Detectron2's logs and warnings to `folder/log.txt` (`log.rankN.txt` on other ranks)."""
    make_folder(folder)
    rank = comm.get_rank()
    file = folder / (LOG_FILE if rank == 0 else f"log.rank{rank}.txt")
    check_replaceable(file)
    handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
    before = {}
    for name in _CHATTY:
        logger = logging.getLogger(name)
        before[name] = (logger.level, logger.propagate, list(logger.handlers))
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for name, (level, propagate, handlers) in before.items():
            logger = logging.getLogger(name)
            logger.setLevel(level)
            logger.propagate, logger.handlers = propagate, handlers
        handler.close()
