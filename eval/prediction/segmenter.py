"""Predict classes of pixels with the network of a segmentation run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from ccop_hub.embedding.extraction import choose_device
from ccop_hub.errors import UserError
from ccop_hub.files import make_folder, replacing, write_atomically
from ccop_hub.formats.training_state import read_training_state
from ccop_hub.saved_settings import read_settings
from ccop_hub.sources.resolve import RANDOM, resolve

from ..common import pictures
from ..common.run_folder import SETTINGS_FILE, STATE_FILE
from ..protocols import SEGMENTATION_PROTOCOLS, apply_settings
from ..results.result import Result
from ..segmentation.crops import base_size
from ..segmentation.drawing import coloured
from ..segmentation.label_table import LabelTable
from ..segmentation.network import Fcn16
from ..segmentation.scoring import class_map, sliding_logits
from ..settings import PredictSettings, SegmentationSettings

LABELS = "labels"
"""Subfolder for the label images."""

_SHOWN_CLASSES = 8


class Segmenter:
    """The network of a segmentation run; writes one 8-bit PNG of label ids per image.

    Args:
        settings: settings of the prediction.
        result: result of the run.

    Raises:
        UserError: the run's state is missing, damaged or of another network.
    """

    def __init__(self, settings: PredictSettings, result: Result) -> None:
        self._out, self._device = settings.out, choose_device(settings.accelerator)
        self._table = label_table(result)
        run = _run_settings(settings.run)
        self._protocol, _ = apply_settings(SEGMENTATION_PROTOCOLS[run.protocol], run, further=("ignore", "label_map"))
        path = settings.run / STATE_FILE
        if not path.is_file():
            raise UserError(f"{path} is missing: the run's network was deleted; train it again")
        state = read_training_state(path, "train the run again")
        untrained = resolve(RANDOM, result.weights.arch)
        facts = {
            **untrained.facts,
            **({"input": result.weights.facts["input"]} if "input" in result.weights.facts else {}),
        }
        weights = dataclasses.replace(untrained, facts=facts)
        self._network = Fcn16(weights, len(self._table.classes), self._protocol.head_dilation, 0, frozen=False)
        try:
            self._network.load_state_dict(state["network"])
        except (KeyError, RuntimeError, TypeError):
            raise UserError(f"{path} does not contain the network of {settings.run}: train the run again") from None
        self._network.to(self._device).eval()
        self._images = self._pixels = 0
        self._found: set[int] = set()

    @torch.no_grad()
    def predict(self, image: Image.Image, image_id: int, name: str, picture: Path | None) -> None:
        """Write the label image and the picture of one image."""
        scaled = image.resize(base_size(image, self._protocol), Image.Resampling.BILINEAR)
        pixels = pil_to_tensor(scaled).unsqueeze(0).float().to(self._device)
        logits = sliding_logits(self._network, pixels, self._protocol.crop_size, self._protocol.stride)
        predicted = class_map(logits, (image.height, image.width)).cpu().numpy()
        self._images += 1
        self._found |= set(np.unique(predicted).tolist())
        path = self._out / LABELS / f"{name}.png"
        make_folder(path.parent)
        with replacing(path, sync=False) as temporary:
            Image.fromarray(np.array(self._table.ids, dtype=np.uint8)[predicted]).save(temporary, format="PNG")
        if picture is not None:
            self._draw(image, predicted, name, picture)

    def finish(self) -> Mapping[str, int]:
        """Write the names of the label ids."""
        names = "".join(f"{number} {name}\n" for number, name in zip(self._table.ids, self._table.classes, strict=True))
        write_atomically(self._out / LABELS / "classes.txt", names)
        return {"classes": len(self._found)}

    def _draw(self, image: Image.Image, predicted: np.ndarray, name: str, picture: Path) -> None:
        """Draw the image beside the coloured classes, above a legend with each class's share of the pixels."""
        counts = np.bincount(predicted.ravel(), minlength=len(self._table.classes))
        largest = [index for index in np.argsort(-counts, kind="stable").tolist() if counts[index]]
        rest = f"\nand {len(largest) - _SHOWN_CLASSES} more classes" if len(largest) > _SHOWN_CLASSES else ""
        legend = [
            (coloured(np.full((24, 60), index), self._table), f"{self._table.classes[index]} {share:.1%}")
            for index, share in ((index, counts[index] / predicted.size) for index in largest[:_SHOWN_CLASSES])
        ]
        tiles = [(image, name), (coloured(predicted, self._table, image), f"{len(largest)} classes{rest}")]
        size = (480, max(1, round(480 * image.height / image.width)))
        upper = pictures.sheet([tiles], size)
        lower = pictures.sheet(pictures.in_rows(legend, 4), (upper.width // 4 - pictures.GAP - 1, 24))
        pictures.save(pictures.stacked(upper, lower), picture)


def label_table(result: Result) -> LabelTable:
    """Return the classes of a run; the label ids of runs of earlier versions are unknown and count from 0."""
    names = [str(name) for name in result.details.get("classes", [])]
    ids = result.details.get("label ids", list(range(len(names))))
    if not names or len(ids) != len(names) or not all(type(number) is int and 0 <= number <= 255 for number in ids):
        raise UserError("the run's result lists no classes: evaluate the run again")
    return LabelTable(names, list(ids))


def _run_settings(run: Path) -> SegmentationSettings:
    known = {field.name for field in dataclasses.fields(SegmentationSettings)}
    return SegmentationSettings(
        **{name: value for name, value in read_settings(run / SETTINGS_FILE).items() if name in known}
    )
