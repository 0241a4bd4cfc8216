"""`ccop-pretrain scenes`: generate a synthetic data set in COCO's layout.

train2017/, val2017/                  images
annotations/instances_train2017.json  and instances_val2017.json: boxes and masks of the visible parts
semantic/train2017/, val2017/         label images; line k (from 0) of semantic/classes.txt names label k
crops/train/<class>/, val/<class>/    one crop per object, for a classifier
"""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccop_hub.console import next_step
from ccop_hub.cores import available_cores
from ccop_hub.errors import UserError
from ccop_hub.files import make_folder, write_atomically
from ccop_hub.locks import folder_lock
from ccop_hub.progress import Progress
from ccop_hub.saved_settings import differences, read_settings, save_settings
from ccop_hub.stopping import stoppable
from ccop_hub.synthetic.shapes import SHAPES

from ..common.parallel import OrderedMap, one_opencv_thread
from ..settings import SceneSettings
from .drawing import SPLITS, Job, coco_document, draw

SETTINGS = "settings.yaml"

_OUTPUTS = (*(f"{split}2017" for split in SPLITS), "annotations", "semantic", "crops", SETTINGS)
_MAY_DIFFER = ("out", "workers", "resume", "overwrite")


@dataclass(frozen=True)
class ScenesResult:
    """A synthetic data set.

    Attributes:
        folder: folder of the data set.
        counts: number of images by split.
        drawn: whether this call drew the images; False if they already existed.
    """

    folder: Path
    counts: dict[str, int]
    drawn: bool


def run(settings: SceneSettings) -> ScenesResult:
    """Draw the data set, unless it is already complete.

    Raises:
        UserError: see `make_scenes`.
        Stopped: a stop signal was received; rerunning the command starts over.
    """
    with stoppable():
        return make_scenes(settings)


def report(result: ScenesResult) -> None:
    """Print the contents of the data set and the next step."""
    sizes = ", ".join(f"{result.counts[split]} {split}" for split in SPLITS)
    print(f"{sum(result.counts.values())} scenes ({sizes}), {len(SHAPES)} classes: {', '.join(SHAPES)}")
    print(f"scenes: {result.folder}" + ("" if result.drawn else " (finished before; nothing to do)"))
    next_step("ccop-pretrain", "proposals", result.folder / "train2017", "--out", "PROPOSALS")


def make_scenes(settings: SceneSettings) -> ScenesResult:
    """Draw the data set.

    Each image depends only on the seed, its split and its index, not on the number of images or workers.

    Raises:
        UserError: `out` contains another data set, or another process is writing to it.
    """
    counts = _split_sizes(settings)
    out = settings.out
    make_folder(out)
    with folder_lock(out):
        if not settings.overwrite and _is_finished(settings):
            return ScenesResult(out, counts, drawn=False)
        # An interruption must leave a set that is incomplete and has these settings, so that a rerun can replace it.
        shutil.rmtree(out / "annotations", ignore_errors=True)
        save_settings(settings, out / SETTINGS)
        _clear(out)
        _draw_all(settings, counts, settings.workers or available_cores())
    return ScenesResult(out, counts, drawn=True)


def _draw_all(settings: SceneSettings, counts: dict[str, int], workers: int) -> None:
    jobs = [Job(split, index) for split in SPLITS for index in range(counts[split])]
    images: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    annotations: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    with (
        Progress("drawing scenes", len(jobs)) as progress,
        OrderedMap(functools.partial(draw, settings), jobs, min(workers, len(jobs)), one_opencv_thread) as drawn,
    ):
        for job, (image, objects) in zip(jobs, drawn, strict=True):
            images[job.split].append(image)
            annotations[job.split].extend(objects)
            progress.advance()
    write_atomically(settings.out / "semantic" / "classes.txt", "\n".join(("background", *SHAPES)) + "\n")
    for split in SPLITS:  # written last, because they mark the set as complete
        text = json.dumps(coco_document(settings, images[split], annotations[split]), separators=(",", ":"))
        write_atomically(_annotations(settings.out, split), text)


def _annotations(out: Path, split: str) -> Path:
    return out / "annotations" / f"instances_{split}2017.json"


def _split_sizes(settings: SceneSettings) -> dict[str, int]:
    val = min(max(round(settings.images * settings.val_share), 1), settings.images - 1)
    return {"train": settings.images - val, "val": val}


def _is_finished(settings: SceneSettings) -> bool:
    """Return whether `out` contains this complete set; False if it is incomplete or has not been started.

    Raises:
        UserError: `out` contains another set, or other files with the names to be written.
    """
    out = settings.out
    there = [out / name for name in _OUTPUTS if (out / name).exists()]
    if not there:
        return False
    if not settings.resume or not (out / SETTINGS).is_file():
        raise UserError(
            f"{out} already contains {there[0].name}; add --overwrite to replace the set, or give another --out"
        )
    changed = differences(read_settings(out / SETTINGS), settings, _MAY_DIFFER)
    if changed:
        raise UserError(
            f"{out} contains a set with other settings: {', '.join(changed)}; add --overwrite to replace it, or give "
            "another --out"
        )
    return all(_annotations(out, split).is_file() for split in SPLITS)


def _clear(out: Path) -> None:
    for path in [out / name for name in _OUTPUTS if name != SETTINGS]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (out / "annotations").mkdir(parents=True)
    for split in SPLITS:
        (out / f"{split}2017").mkdir()
        (out / "semantic" / f"{split}2017").mkdir(parents=True)
        for shape in SHAPES:
            (out / "crops" / split / shape).mkdir(parents=True)
