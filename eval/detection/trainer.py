"""Detectron2's own trainer with our weights, data order, resuming and progress; its files go to its own folder."""

from __future__ import annotations

import contextlib
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
from detectron2.engine.hooks import PreciseBN
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from ccop_hub.errors import UserError
from ccop_hub.files import write_atomically

from .average_precision import Scorer, voc_scores
from .data_order import GroupedBatches, NumberedSamples, ResumableLoader
from .progress import LOG_FILE, Progress

INFERENCE_FOLDER = "inference"
"""Folder, inside Detectron2's own, of the predictions that were scored."""

PREDICTIONS_FILE = "coco_instances_results.json"
"""COCO result JSON inside `INFERENCE_FOLDER` (Detectron2's name for it)."""

_UNFINISHED = ".unfinished"
"""In the name of a checkpoint that is being written."""


class Trainer(DefaultTrainer):  # type: ignore[misc]
    """`DefaultTrainer` from given weights; every random draw depends only on seed, step and rank.

    A run that is stopped and resumed from a checkpoint therefore computes the same as one that was never stopped: on
    a CPU with the same number of threads to the last bit, on GPUs as far as their kernels are deterministic.

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
    def build_train_loader(cls, cfg: Any) -> ResumableLoader:
        """The training data in the order that `cfg.SEED` draws (two weights are then trained on the same batches)."""
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
        """Detectron2's, with `Mapper`."""
        return build_detection_test_loader(cfg, dataset_name, mapper=Mapper(cfg, is_train=False))

    @classmethod
    def build_evaluator(cls, cfg: Any, dataset_name: str) -> COCOEvaluator:
        """COCO's official scorer (pycocotools); the compiled one is faster, unofficial and not always there."""
        return CocoEvaluator(dataset_name, **_evaluator_options(cfg))

    @classmethod
    def test(cls, cfg: Any, model: nn.Module, evaluators: Any = None) -> Any:
        """Detectron2's test, with what pycocotools prints sent to the log."""
        log = Path(cfg.OUTPUT_DIR) / LOG_FILE
        with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            return super().test(cfg, model, evaluators)

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks, with checkpoints that survive a kill and repeatable statistics."""
        self.checkpointer = Checkpointer(self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        return [self._replacement(hook) for hook in super().build_hooks()]

    def _replacement(self, hook: HookBase) -> HookBase:
        if isinstance(hook, PreciseBN) and not hook._disabled:
            test = self.cfg.TEST
            return StatisticsFromStart(test.EVAL_PERIOD, self.model, hook._data_loader, test.PRECISE_BN.NUM_ITER)
        return hook

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's log, JSON lines and TensorBoard, and the line of progress."""
        return [*super().build_writers(), Progress(self.max_iter)]

    def go_on(self) -> None:
        """Take up the last checkpoint, if there is one: network, optimizer, schedule, and the place in the data."""
        self.resume_or_load(resume=True)
        self.data_loader.first = self.start_iter

    def run_step(self) -> None:
        """One step; what the network samples in it (proposals, regions) depends on seed, step and rank alone."""
        entropy = np.random.SeedSequence((self.cfg.SEED, self.iter, comm.get_rank()))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        super().run_step()

    def state_dict(self) -> dict[str, Any]:
        """With the optimizer's state, which v0.6 leaves out of its checkpoints."""
        state: dict[str, Any] = super().state_dict()
        state.setdefault("_trainer", self._trainer.state_dict())
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The counterpart of `state_dict`."""
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])


class VocTrainer(Trainer):
    """`Trainer` that scores by Pascal VOC's metric."""

    @classmethod
    def build_evaluator(cls, cfg: Any, dataset_name: str) -> COCOEvaluator:
        """VOC 2007's metric on the same written predictions."""
        return VocEvaluator(dataset_name, **_evaluator_options(cfg))


TRAINERS: dict[Scorer, type[Trainer]] = {"coco": Trainer, "voc": VocTrainer}


class Mapper(DatasetMapper):  # type: ignore[misc]
    """`DatasetMapper` that names the file of an image which cannot be read or is not of the size in the JSON."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """The augmented sample.

        Raises:
            UserError: the image is not one, or has another size.
        """
        try:
            sample: dict[str, Any] = super().__call__(dataset_dict)
        except SizeMismatchError as error:
            raise UserError(f"{error} Correct the annotations or the image") from None
        except (OSError, SyntaxError) as error:  # Pillow raises the latter for a broken PNG
            raise UserError(
                f"{dataset_dict['file_name']} cannot be read: {error}; replace the image or remove it from the JSON"
            ) from None
        return sample


class CocoEvaluator(COCOEvaluator):  # type: ignore[misc]
    """COCO's metric, by which a detector that finds nothing has AP 0; Detectron2 calls it undefined."""

    def _derive_coco_results(self, coco_eval: Any, iou_type: str, class_names: Any = None) -> dict[str, float]:
        if coco_eval is None:
            coco_eval = COCOeval(self._coco_api, COCO(), iou_type)
            coco_eval.evaluate()
            coco_eval.accumulate()
            coco_eval.summarize()
        scores: dict[str, float] = super()._derive_coco_results(coco_eval, iou_type, class_names)
        return scores


class VocEvaluator(CocoEvaluator):
    """Writes predictions as COCO's evaluator does, and scores them by VOC 2007's rules.

    Detectron2's own needs VOC's files on disk, calls numpy names that are gone, and writes no predictions.
    """

    def evaluate(self, img_ids: Any = None) -> dict[str, dict[str, float]]:
        """The scores on rank 0, elsewhere nothing."""
        if not super().evaluate(img_ids):
            return {}
        predictions = Path(self._output_dir) / PREDICTIONS_FILE
        return voc_scores(Path(self._metadata.json_file), predictions, self._metadata.thing_classes)


class Checkpointer(DetectionCheckpointer):  # type: ignore[misc]
    """`DetectionCheckpointer` that can be killed at any moment: there is always one whole checkpoint, the last."""

    def save(self, name: str, **kwargs: Any) -> None:
        """Write a checkpoint under a name that does not count yet; `tag_last_checkpoint` makes it count."""
        super().save(f"{name}{_UNFINISHED}", **kwargs)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Give the file that was just written its own name, call it the last, and remove those before it."""
        folder = Path(self.save_dir)
        whole = last_filename_basename.replace(_UNFINISHED, "")
        (folder / last_filename_basename).replace(folder / whole)
        write_atomically(folder / "last_checkpoint", whole.encode())
        for path in folder.glob("model_*.pth"):
            if path.name != whole:
                path.unlink()


class StatisticsFromStart(PreciseBN):  # type: ignore[misc]
    """`PreciseBN` that averages over the same batches each time, whatever was averaged before."""

    def update_stats(self) -> None:
        """Average from the first batch on."""
        self._data_iter = None
        super().update_stats()


def _evaluator_options(cfg: Any) -> dict[str, Any]:
    tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
    return {"tasks": tasks, "output_dir": str(Path(cfg.OUTPUT_DIR) / INFERENCE_FOLDER), "use_fast_impl": False}
