"""Detect objects with the network of a detection run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ccop_hub.bounded_yaml import read_yaml
from ccop_hub.embedding.extraction import choose_device
from ccop_hub.errors import UserError, one_line
from ccop_hub.files import replacing, write_atomically
from ccop_hub.formats.training_state import read_training_state
from ccop_hub.markup import utf8_text

from ..common import pictures
from ..detection.engine import load_engine
from ..detection.pictures import caption, draw_instances
from ..detection.plan import ENGINE_FOLDER, FINAL_CHECKPOINT
from ..results.result import Result
from ..settings import PredictSettings

PREDICTIONS, IMAGES = "predictions.json", "images.json"
"""COCO results; and the images and categories that they refer to."""

_REMEDY = "restore it, or train the run again"
_SHOWN_SIDE = 640


class Detector:
    """The detector of a run; writes COCO results with every detection above the detector's own lowest score.

    Args:
        settings: settings of the prediction.
        result: result of the run.

    Raises:
        UserError: Detectron2 is not installed, or the detector is missing, damaged or of another configuration.
    """

    def __init__(self, settings: PredictSettings, result: Result) -> None:
        load_engine()
        from detectron2.data.transforms import ResizeShortestEdge
        from detectron2.modeling import build_model

        self._out, self._threshold = settings.out, settings.threshold
        folder = settings.run / ENGINE_FOLDER
        cfg = read_config(folder / "config.yaml")
        cfg.MODEL.DEVICE = str(choose_device(settings.accelerator))
        self._categories = categories(result, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        path = folder / FINAL_CHECKPOINT
        if not path.is_file():
            raise UserError(f"{path} is missing: the detector was deleted; train it again")
        state = read_training_state(path, "train the run again")
        self._model = build_model(cfg)
        try:
            self._model.load_state_dict(state["model"])
        except (KeyError, RuntimeError, TypeError, AttributeError):
            raise UserError(f"{path} does not fit {folder / 'config.yaml'}: train the run again") from None
        self._model.eval()
        self._resize = ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
        self._flip = cfg.INPUT.FORMAT == "BGR"
        self._images: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self._empty = 0

    @torch.no_grad()
    def predict(self, image: Image.Image, image_id: int, name: str, picture: Path | None) -> None:
        """Detect the objects of one image and draw those above the threshold."""
        from detectron2.evaluation.coco_evaluation import instances_to_coco_json

        pixels = np.asarray(image)
        shown = pixels[:, :, ::-1] if self._flip else pixels
        resized = self._resize.get_transform(shown).apply_image(np.ascontiguousarray(shown))
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        found = self._model([{"image": tensor, "height": image.height, "width": image.width}])[0]["instances"]
        instances = found.to("cpu")
        ids = list(self._categories)
        entries = instances_to_coco_json(instances, image_id)
        for entry in entries:
            entry["category_id"] = ids[entry["category_id"]]
        self._results += entries
        escaped = utf8_text(name)
        self._images.append({"id": image_id, "file_name": escaped, "width": image.width, "height": image.height})
        scores = sorted(instances.scores.tolist(), reverse=True)
        self._empty += not any(score >= self._threshold for score in scores)
        if picture is not None:
            kept = instances[instances.scores >= self._threshold]
            drawn = draw_instances(pixels, kept, list(self._categories.values()), _SHOWN_SIDE / max(image.size))
            text = f"{escaped}\n{caption(scores, self._threshold)}"
            height, width = drawn.shape[:2]
            pictures.save(pictures.sheet([[(Image.fromarray(drawn), text)]], (width, height)), picture)

    def finish(self) -> Mapping[str, int]:
        """Write the results and the images that they refer to."""
        import orjson

        listed = [{"id": number, "name": name} for number, name in self._categories.items()]
        write_atomically(self._out / IMAGES, orjson.dumps({"images": self._images, "categories": listed}))
        with replacing(self._out / PREDICTIONS) as temporary:
            temporary.write_bytes(orjson.dumps(self._results))
        above = sum(entry["score"] >= self._threshold for entry in self._results)
        return {
            "detections": len(self._results),
            f"detections above {self._threshold:g}": above,
            "images without a detection above it": self._empty,
        }


def categories(result: Result, count: int) -> dict[int, str]:
    """Return category id -> name in the order of the detector's classes; ids of older runs count from 1.

    Raises:
        UserError: the result does not name as many classes as the detector has.
    """
    recorded = result.details.get("categories")
    if isinstance(recorded, Mapping):
        found = {int(number): str(name) for number, name in recorded.items()}
    else:
        names = next((list(classes) for kind, classes in result.per_class.items() if kind == "bbox/AP"), [])
        found = dict(enumerate(names, start=1))
    if len(found) != count:
        raise UserError(f"the run's result names {len(found)} classes, its detector has {count}: train the run again")
    return found


def read_config(path: Path) -> Any:
    """Read the Detectron2 configuration of a run, without constructing Python objects.

    Raises:
        UserError: the file is missing or not such a configuration.
    """
    from detectron2.config import CfgNode, get_cfg

    from ..detection import c4_heads  # noqa: F401 - registers the region heads of the C4 protocols

    cfg = get_cfg()
    try:
        content, _ = read_yaml(path, _REMEDY)
        if isinstance(content, dict) and "TIMM" in (content.get("MODEL") or {}):
            from ..detection import timm_backbone  # noqa: F401 - registers the backbone

            cfg.MODEL.TIMM = CfgNode({"ARCH": ""})
        cfg.merge_from_other_cfg(type(cfg)(content))
    except (OSError, ValueError, KeyError, AssertionError, TypeError, AttributeError) as error:
        what = f"is not the configuration of a detection run ({one_line(error, 120)})"
        raise UserError(f"{path} {what}: {_REMEDY}") from None
    return cfg
