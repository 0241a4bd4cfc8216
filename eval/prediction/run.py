"""`ccop-eval predict`: run the detector or segmenter of a finished run on any images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.files import make_folder
from ccop_hub.image_sources.skipped import SkippedImages, require_readable
from ccop_hub.image_sources.source import open_source
from ccop_hub.images import UnreadableImageError
from ccop_hub.locks import folder_lock
from ccop_hub.notebook import summary_html
from ccop_hub.progress import Progress, announce
from ccop_hub.stopping import stoppable

from ..results.result import RESULT_FILE, Result
from ..settings import PredictSettings
from .names import FileNames

PICTURES = "pictures"


class Predictor(Protocol):
    """Predicts for one image at a time and collects what it writes."""

    def predict(self, image: Image.Image, image_id: int, name: str, picture: Path | None) -> None:
        """Predict for an upright RGB image.

        Args:
            image: the image.
            image_id: its id in the output.
            name: its key, without a leading slash or parent folders.
            picture: file for the picture of the predictions, if wanted.
        """

    def finish(self) -> Mapping[str, int]:
        """Write what was collected; return counts for the summary."""


@dataclass(frozen=True)
class Prediction:
    """What `predict` wrote.

    Attributes:
        folder: the output folder.
        task: `detection` or `segmentation`.
        images: number of images predicted.
        counts: what was found, by name.
        skipped: reason for each image that could not be read, by key.
        pictures: the pictures, in the order of the images.
    """

    folder: Path
    task: str
    images: int
    counts: Mapping[str, int]
    skipped: Mapping[str, str]
    pictures: tuple[Path, ...]

    def document(self) -> dict[str, object]:
        """Return the attributes as JSON values; pictures as their number."""
        return {
            "folder": str(self.folder),
            "task": self.task,
            "images": self.images,
            **self.counts,
            "skipped": dict(self.skipped),
            "pictures": len(self.pictures),
        }

    def _repr_html_(self) -> str:
        rows = {"images": str(self.images), **{name: str(count) for name, count in self.counts.items()}}
        return summary_html(str(self.folder), rows)


def run(settings: PredictSettings) -> Prediction:
    """Predict for all images; write pictures, and COCO results (detection) or label images (segmentation).

    Raises:
        UserError: the run is not finished or predicts nothing, too many images are unreadable, the folder contains
            other predictions, or another process is writing to it.
    """
    result = _finished(settings.run)
    names = FileNames(settings.out)
    make_folder(settings.out)
    with folder_lock(settings.out):
        names.make_room(settings.overwrite)
        prediction = _predict(settings, result, names)
        names.complete()
        return prediction


def _predict(settings: PredictSettings, result: Result, names: FileNames) -> Prediction:
    announce(f"listing {settings.images}")
    source = open_source(settings.images, exclude=[settings.out])
    announce(f"loading the network of {settings.run}")
    predictor = _predictor(settings, result)
    skipped = SkippedImages()
    pictures: list[Path] = []
    with stoppable(), Progress("predicting", len(source)) as progress:
        for index, stored in enumerate(source):
            try:
                image = stored.read(settings.max_pixels)
            except UnreadableImageError as error:
                skipped.add(stored.key, error.reason)
                require_readable(skipped, len(source), settings.max_unreadable)
            else:
                name = names.of(stored.key)
                picture = settings.out / PICTURES / f"{name}.png" if settings.pictures else None
                predictor.predict(image, index + 1 if source.ids is None else int(source.ids[index]), name, picture)
                pictures += [] if picture is None else [picture]
            progress.advance()
        counts = predictor.finish()
    images = len(source) - len(skipped)
    return Prediction(settings.out, result.task, images, counts, skipped.reasons(), tuple(pictures))


def _finished(run: Path) -> Result:
    if not run.is_dir():
        raise UserError(f"no run folder {run}: give the --out of a `ccop-eval detection` or `segmentation` run")
    if not (run / RESULT_FILE).is_file():
        raise UserError(f"{run} contains no {RESULT_FILE}: finish the run by its command, or give another run folder")
    result = Result.read(run)
    if result.task not in ("detection", "segmentation"):
        raise UserError(f"{run} is a {result.task} run, which predicts nothing: give a detection or segmentation run")
    return result


def _predictor(settings: PredictSettings, result: Result) -> Predictor:
    if result.task == "detection":
        from .detector import Detector

        return Detector(settings, result)
    from .segmenter import Segmenter

    return Segmenter(settings, result)
