"""Detectron2's trainer with our weights, data order, exact resume and progress output."""

from __future__ import annotations

import contextlib
import functools
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetMapper, build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.engine.hooks import EvalHook, PreciseBN
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from ccop_hub.errors import UserError
from ccop_hub.files import write_atomically, writing_whole
from ccop_hub.formats.training_state import read_training_state
from ccop_hub.markup import utf8_text
from ccop_hub.readers import Reader
from ccop_hub.regular_files import read_text
from ccop_hub.stopping import Stopped, StopRequest

from .average_precision import Scorer, voc_scores
from .data_order import GroupedBatches, NumberedSamples, ResumableLoader
from .progress import LOG_FILE, Progress

INFERENCE_FOLDER = "inference"
"""Subfolder of Detectron2's folder for the scored predictions."""

PREDICTIONS_FILE = "coco_instances_results.json"
"""COCO result JSON in `INFERENCE_FOLDER`, as named by Detectron2."""

LAST_CHECKPOINT = "last_checkpoint"
"""File with the name of the last checkpoint, as Detectron2 calls it."""

_CHECKPOINT_NAME = re.compile(r"model_(\d+|final)\.pth", re.ASCII)
_LONGEST_NAME = 1 << 10
_START_OVER = "give --overwrite to start over, or another --out"
_UNFINISHED = ".unfinished"
"""Marks the file name of a checkpoint that is still being written."""


class Trainer(DefaultTrainer):  # type: ignore[misc]
    """`DefaultTrainer` whose random draws depend only on seed, step and rank.

    A resumed run therefore gives the same result as an uninterrupted one: bit for bit on a CPU with the same number of
    threads, and up to nondeterministic kernels on GPUs.

    Args:
        cfg: Detectron2's configuration.
        prepare: called with the new model before it is wrapped for distributed training, e.g. to load weights.
    """

    def __init__(self, cfg: Any, prepare: Callable[[nn.Module], None]) -> None:
        self._prepare = prepare
        self._request = StopRequest()
        super().__init__(cfg)

    def build_model(self, cfg: Any) -> nn.Module:
        """Build Detectron2's model for `cfg` and prepare it."""
        model: nn.Module = build_model(cfg)
        self._prepare(model)
        return model

    @classmethod
    def build_train_loader(cls, cfg: Any) -> ResumableLoader:
        """Build the training loader; `cfg.SEED` fixes the order, so that paired runs train on the same batches."""
        records = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
        batches = GroupedBatches(
            [record["width"] > record["height"] for record in records],
            cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
            cfg.SEED,
            cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        )
        samples = NumberedSamples(records, Mapper(cfg, is_train=True), cfg.SEED)
        return ResumableLoader(samples, batches, cfg.DATALOADER.NUM_WORKERS)

    @classmethod
    def build_test_loader(cls, cfg: Any, dataset_name: str) -> Any:
        """Build Detectron2's test loader with `Mapper`, and with workers that leave stop signals to this process."""
        theirs = build_detection_test_loader(cfg, dataset_name, mapper=Mapper(cfg, is_train=False))
        return Reader(
            theirs.dataset,
            batch_size=theirs.batch_size,
            sampler=theirs.sampler,
            num_workers=theirs.num_workers,
            collate_fn=theirs.collate_fn,
        )

    @classmethod
    def build_evaluator(cls, cfg: Any, dataset_name: str) -> COCOEvaluator:
        """Use the official pycocotools: Detectron2's compiled scorer is faster but unofficial and not always built."""
        return CocoEvaluator(dataset_name, **_evaluator_options(cfg))

    @classmethod
    def test(cls, cfg: Any, model: nn.Module, evaluators: Any = None) -> Any:
        """Run Detectron2's test, redirecting pycocotools' output to the log."""
        log = Path(cfg.OUTPUT_DIR) / LOG_FILE
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file, contextlib.redirect_stdout(file):
            return super().test(cfg, model, evaluators)

    def build_hooks(self) -> list[HookBase]:
        """Build Detectron2's hooks, with kill-safe checkpoints and reproducible BN statistics."""
        self.checkpointer = Checkpointer(self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        return [self._replacement(hook) for hook in super().build_hooks()]

    def train(self) -> Any:
        """Train; a stop signal ends the training after a step, with a checkpoint to resume from.

        Raises:
            Stopped: a stop signal was received.
        """
        with self._request:
            return super().train()

    def after_step(self) -> None:
        """Run the hooks; then save and stop if any process has received a stop signal."""
        super().after_step()
        # The same in every process, which may have received different signals or none.
        number = max(comm.all_gather(int(self._request.signal or 0)))
        if number:
            self._save()
            raise Stopped(number)

    def _save(self) -> None:
        """Save a checkpoint of the current iteration, as Detectron2's periodic checkpoints."""
        self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)

    def _evaluate(self, function: Callable[[], Any]) -> Any:
        """Evaluate during training. A stop signal interrupts it; a single process then saves a checkpoint."""
        try:
            with self._request.paused():
                return function()
        except Stopped:
            if comm.get_world_size() == 1 and self.iter < self.max_iter - 1:
                self._save()
            raise

    def _replacement(self, hook: HookBase) -> HookBase:
        if isinstance(hook, EvalHook):
            return EvalHook(hook._period, functools.partial(self._evaluate, hook._func))
        if isinstance(hook, PreciseBN) and not hook._disabled:
            test = self.cfg.TEST
            return StatisticsFromStart(test.EVAL_PERIOD, self.model, hook._data_loader, test.PRECISE_BN.NUM_ITER)
        return hook

    def build_writers(self) -> list[EventWriter]:
        """Build Detectron2's writers (log, JSON lines, TensorBoard) and the progress line."""
        folder = self.cfg.OUTPUT_DIR
        if utf8_text(folder) == folder:
            writers = super().build_writers()
        else:  # TensorBoard's names are UTF-8
            writers = [CommonMetricPrinter(self.max_iter), JSONWriter(str(Path(folder) / "metrics.json"))]
        return [*writers, Progress(self.max_iter)]

    def resume_from_checkpoint(self) -> None:
        """Resume from the last checkpoint, if any: model, optimizer, schedule and position in the data."""
        self.resume_or_load(resume=True)
        self.data_loader.first = self.start_iter

    def run_step(self) -> None:
        """Run one step; the model's random sampling (proposals, regions) depends only on seed, step and rank."""
        entropy = np.random.SeedSequence((self.cfg.SEED, self.iter, comm.get_rank()))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        super().run_step()

    def state_dict(self) -> dict[str, Any]:
        """Include the optimizer's state, which v0.6 omits from its checkpoints."""
        state: dict[str, Any] = super().state_dict()
        state.setdefault("_trainer", self._trainer.state_dict())
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])


class VocTrainer(Trainer):
    """`Trainer` that scores with Pascal VOC's metric."""

    @classmethod
    def build_evaluator(cls, cfg: Any, dataset_name: str) -> COCOEvaluator:
        """Score the same saved predictions with VOC 2007's metric."""
        return VocEvaluator(dataset_name, **_evaluator_options(cfg))


TRAINERS: dict[Scorer, type[Trainer]] = {"coco": Trainer, "voc": VocTrainer}


class Mapper(DatasetMapper):  # type: ignore[misc]
    """`DatasetMapper` whose errors name the image file that is unreadable or whose size differs from the JSON."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Return the augmented sample.

        Raises:
            UserError: the image is unreadable or its size differs from the JSON.
        """
        try:
            sample: dict[str, Any] = super().__call__(dataset_dict)
        except SizeMismatchError as error:
            raise UserError(f"{error} Correct the annotations or the image") from None
        except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
            raise UserError(
                f"{dataset_dict['file_name']} cannot be read: {error}; replace the image or remove it from the JSON"
            ) from None
        return sample


class CocoEvaluator(COCOEvaluator):  # type: ignore[misc]
    """COCO's metric, in which a detector without detections has AP 0; Detectron2 reports it as undefined."""

    def _derive_coco_results(self, coco_eval: Any, iou_type: str, class_names: Any = None) -> dict[str, float]:
        if coco_eval is None:
            coco_eval = COCOeval(self._coco_api, COCO(), iou_type)
            coco_eval.evaluate()
            coco_eval.accumulate()
            coco_eval.summarize()
        scores: dict[str, float] = super()._derive_coco_results(coco_eval, iou_type, class_names)
        return scores


class VocEvaluator(CocoEvaluator):
    """Writes predictions like the COCO evaluator, and scores them by VOC 2007's rules.

    Detectron2's VOC evaluator needs the VOC files on disk, uses removed NumPy names, and writes no predictions.
    """

    def evaluate(self, img_ids: Any = None) -> dict[str, dict[str, float]]:
        """Return the scores on rank 0, and nothing on other ranks."""
        if not super().evaluate(img_ids):
            return {}
        predictions = Path(self._output_dir) / PREDICTIONS_FILE
        return voc_scores(Path(self._metadata.json_file), predictions, self._metadata.thing_classes)


class Checkpointer(DetectionCheckpointer):  # type: ignore[misc]
    """`DetectionCheckpointer` that is safe to kill at any time: the last complete checkpoint always survives."""

    def get_checkpoint_file(self) -> str:
        """Return the path of the last checkpoint.

        Raises:
            UserError: `last_checkpoint` names anything but a checkpoint in its folder.
        """
        record = Path(self.save_dir) / LAST_CHECKPOINT
        try:
            name = read_text(record, _LONGEST_NAME).strip()
        except (OSError, UnicodeDecodeError):
            name = ""
        if not _CHECKPOINT_NAME.fullmatch(name):
            raise UserError(f"{record} does not name a checkpoint beside it: {_START_OVER}")
        return str(Path(self.save_dir) / name)

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Read a checkpoint of this run; Detectron2 would unpickle any file, which can run code."""
        state = read_training_state(Path(filename), _START_OVER)
        expected, found = self.model.state_dict(), state.get("model")
        if not isinstance(found, dict) or found.keys() != expected.keys():
            raise UserError(f"{filename} is not a checkpoint of this detector: {_START_OVER}")
        for name, value in found.items():
            if not isinstance(value, torch.Tensor) or value.shape != expected[name].shape:
                raise UserError(f"{filename} is not a checkpoint of this detector ({name} differs): {_START_OVER}")
            if value.is_floating_point() and not value.isfinite().all():
                raise UserError(f"{name} in {filename} is NaN or infinite: {_START_OVER}")
        return state

    def save(self, name: str, **kwargs: Any) -> None:
        """Write a checkpoint under a temporary name; `tag_last_checkpoint` gives it its final one."""
        folder = Path(self.save_dir)
        with writing_whole(folder / f"{name}.pth", folder / f"{name}{_UNFINISHED}.pth"):
            super().save(f"{name}{_UNFINISHED}", **kwargs)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Rename the file just written, tag it as the last checkpoint, and remove earlier ones."""
        folder = Path(self.save_dir)
        whole = last_filename_basename.replace(_UNFINISHED, "")
        (folder / last_filename_basename).replace(folder / whole)
        write_atomically(folder / LAST_CHECKPOINT, whole.encode())
        for path in folder.glob("model_*.pth"):
            if path.name != whole:
                path.unlink()


class StatisticsFromStart(PreciseBN):  # type: ignore[misc]
    """`PreciseBN` that averages over the same batches every time."""

    def update_stats(self) -> None:
        """Compute the statistics, starting from the first batch."""
        self._data_iter = None
        super().update_stats()


def _evaluator_options(cfg: Any) -> dict[str, Any]:
    tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
    return {"tasks": tasks, "output_dir": str(Path(cfg.OUTPUT_DIR) / INFERENCE_FOLDER), "use_fast_impl": False}
