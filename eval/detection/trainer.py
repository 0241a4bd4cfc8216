"""Detectron2's own trainer with our weights, data order and progress; its logs go to its own folder."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from detectron2.data import build_detection_train_loader, get_detection_dataset_dicts
from detectron2.data.samplers import TrainingSampler
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.utils.events import EventWriter, get_event_storage
from torch import nn

LOG_FILE = "log.txt"
INFERENCE_FOLDER = "inference"
"""Folder, inside Detectron2's own, of the predictions that were scored."""

_CHATTY = ("detectron2", "fvcore", "py.warnings")
_REPORTS = 20
"""Lines of progress over a whole training."""


class Trainer(DefaultTrainer):  # type: ignore[misc]
    """`DefaultTrainer` whose model starts from given weights and whose data order depends on `cfg.SEED` alone.

    Args:
        cfg: Detectron2's configuration.
        prepare: called with the new model, before it moves into a distributed wrapper.
    """

    def __init__(self, cfg: Any, prepare: Callable[[nn.Module], None]) -> None:
        self._prepare = prepare
        super().__init__(cfg)

    def build_model(self, cfg: Any) -> nn.Module:
        """Detectron2's model for `cfg`, prepared."""
        model: nn.Module = build_model(cfg)
        self._prepare(model)
        return model

    @classmethod
    def build_train_loader(cls, cfg: Any) -> Any:
        """Detectron2's loader, its order drawn from `cfg.SEED` (two weights are then trained on the same batches)."""
        dataset = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
        sampler = TrainingSampler(len(dataset), seed=cfg.SEED)
        return build_detection_train_loader(cfg, dataset=dataset, sampler=sampler)

    @classmethod
    def build_evaluator(cls, cfg: Any, dataset_name: str) -> COCOEvaluator:
        """COCO's official scorer (pycocotools); the compiled one is faster, unofficial and not always there."""
        tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
        folder = str(Path(cfg.OUTPUT_DIR) / INFERENCE_FOLDER)
        return COCOEvaluator(dataset_name, tasks=tasks, output_dir=folder, use_fast_impl=False)

    @classmethod
    def test(cls, cfg: Any, model: nn.Module, evaluators: Any = None) -> Any:
        """Detectron2's test, with what pycocotools prints sent to the log."""
        log = Path(cfg.OUTPUT_DIR) / LOG_FILE
        with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            return super().test(cfg, model, evaluators)

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks, with the last checkpoint kept instead of all (one holds the optimizer's state too)."""
        period = self.cfg.SOLVER.CHECKPOINT_PERIOD
        replacement = PeriodicCheckpointer(self.checkpointer, period, max_to_keep=1)
        return [replacement if isinstance(hook, PeriodicCheckpointer) else hook for hook in super().build_hooks()]

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's log, JSON lines and TensorBoard, and a line of progress now and then."""
        return [*super().build_writers(), Progress(self.max_iter)]


class Progress(EventWriter):  # type: ignore[misc]
    """Prints iteration, loss, speed and remaining time about twenty times a training."""

    def __init__(self, iterations: int) -> None:
        self._iterations = iterations
        self._period = max(1, iterations // _REPORTS)
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
        loss = histories["total_loss"].median(20)
        print(
            f"iteration {done:>6} of {self._iterations}  loss {loss:7.3f}  {1 / seconds:6.2f} it/s  ETA {remaining}",
            flush=True,
        )

    def close(self) -> None:
        """Nothing to close."""


@contextlib.contextmanager
def logs_in(folder: Path) -> Iterator[None]:
    """Send what Detectron2 logs, warns and prints about the scorer to `folder/log.txt` while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / LOG_FILE, encoding="utf-8")
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
