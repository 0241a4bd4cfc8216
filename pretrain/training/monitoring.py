"""Warnings about a run: about its settings before it starts, and about collapse and shortcuts during training."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import numpy as np

from ..settings import RunSettings
from ..views.dataset import ViewDataset
from ..views.listing import ImageListing
from .schedule import Schedule

LOG = logging.getLogger("ccop_pretrain.training.monitoring")

COLLAPSED_BELOW = 0.1
"""Collapse threshold for the embedding standard deviation, relative to 1/sqrt(D) for a uniform sphere."""

SUSTAINED_REPORTS = 5
"""Consecutive reports below the threshold before warning, since a single batch may contain similar images."""

AHEAD_BY = 0.1
"""How far queue accuracy may exceed batch accuracy. It should be lower, since the queue has more keys; the margin
allows for the noise of small batches."""

FILLS_IN_WARMUP = 2
"""How many times a queue should be filled before the learning rate peaks."""

ADAMW_HIGHEST_LR = 0.01
"""Peak learning rate above which to warn about AdamW: ten times its default in PyTorch."""

IMAGES_COUNTED = 64
"""Number of images used to estimate the boxes per view."""


class CollapseAlarm:
    """Warns about embeddings that have become nearly identical for all inputs.

    Args:
        settings: settings of the run, for suggesting a fix.
        warmup_steps: steps to ignore, since newly initialised heads map everything to similar embeddings.
    """

    def __init__(self, settings: RunSettings, warmup_steps: float) -> None:
        self.settings = settings
        self.uniform = 1 / math.sqrt(settings.embedding_dim)
        self.warmup_steps = warmup_steps
        self._low: dict[str, int] = {}

    def look(self, figures: Mapping[str, float], step: int) -> list[str]:
        """Check a step's metrics (`image_embedding_std`, `box_embedding_std`) and return any new warnings.

        A collapse is reported once, and again only after the embeddings have recovered.
        """
        if step <= self.warmup_steps:
            return []
        warnings = []
        for kind in ("image", "box"):
            std = figures.get(f"{kind}_embedding_std")
            if std is None:
                continue
            share = std / self.uniform
            self._low[kind] = self._low.get(kind, 0) + 1 if share < COLLAPSED_BELOW else 0
            if self._low[kind] == SUSTAINED_REPORTS:
                remedies = [*slower_keys(self.settings), f"a lower --lr (now {self.settings.lr:g})"]
                remedies += ["a longer --warmup-epochs", f"a shorter --{kind}-queue"]
                warnings.append(
                    f"step {step}: the {kind} embeddings have collapsed: their standard deviation is {std:.2g}, "
                    f"{share:.1%} of a uniform sphere's {self.uniform:.2g}, in {SUSTAINED_REPORTS} reports in a row; "
                    f"what may help: {', '.join(remedies[:-1])} or {remedies[-1]}"
                )
        for warning in warnings:
            LOG.warning("%s", warning)
        return warnings


class ShortcutAlarm:
    """Warns if queries match keys by age or batch rather than by image content.

    A queue has more keys than a batch, so the positive should beat all of its keys less often. If it does so more
    often, the queue's keys differ from the current ones in something that all images in a batch share: their age, since
    the key encoder has changed, or the batch norm statistics. The network then learns nothing from the images.

    Args:
        settings: settings of the run, for suggesting a fix.
        warmup_steps: steps to ignore; queues that still contain random keys are ignored too.
    """

    def __init__(self, settings: RunSettings, warmup_steps: float) -> None:
        self.settings = settings
        self.warmup_steps = warmup_steps
        self._ahead: dict[str, int] = {}

    def look(self, figures: Mapping[str, float], step: int) -> list[str]:
        """Check a step's metrics and return any new warnings, at most one per kind of embedding in a run.

        Args:
            figures: `image_accuracy`, `image_batch_accuracy`, `image_queue_filled`, the same for `box`, and
                `boxes_per_image`. Queues without metrics, or with fewer keys than a batch, are not checked.
            step: step, from 1.
        """
        warnings = []
        lengths = {"image": self.settings.image_queue, "box": self.settings.box_queue}
        for kind, length in lengths.items():
            keys = self.settings.batch_size * (1.0 if kind == "image" else figures.get("boxes_per_image", 0.0))
            filled = figures.get(f"{kind}_queue_filled", 0.0) == 1
            if step <= self.warmup_steps or not filled or length < keys:
                continue
            queue, batch = figures[f"{kind}_accuracy"], figures[f"{kind}_batch_accuracy"]
            ahead = self._ahead.get(kind, 0)
            if ahead < SUSTAINED_REPORTS:
                self._ahead[kind] = ahead + 1 if queue - batch > AHEAD_BY else 0
                if self._ahead[kind] == SUSTAINED_REPORTS:
                    warnings.append(self._warning(kind, step, queue, batch))
        for warning in warnings:
            LOG.warning("%s", warning)
        return warnings

    def _warning(self, kind: str, step: int, queue: float, batch: float) -> str:
        remedies = [*slower_keys(self.settings), "--negatives batch"]
        if self.settings.split_bn == 1:
            remedies.append("--split-bn 4")
        remedies.append(f"a lower --lr (now {self.settings.lr:g})")
        return (
            f"step {step}: the {kind} accuracy is {queue:.2g} against the queue and {batch:.2g} against other images "
            f"of the same batch, in {SUSTAINED_REPORTS} reports in a row: keys are recognised by their age or their "
            f"batch, not by what the images show; what may help: {', '.join(remedies[:-1])} or {remedies[-1]}"
        )


def slower_keys(settings: RunSettings) -> list[str]:
    """Suggest the paper's momentum if the key encoder changes faster than in the paper."""
    slow = RunSettings.momentum
    return [f"--momentum {slow:g} (now {settings.momentum:g})"] if settings.momentum < slow else []


def expected_boxes(listing: ImageListing, settings: RunSettings) -> float:
    """Estimate the mean number of boxes per view from images spread over the listing; 0 if no loss uses boxes."""
    store = listing.proposals
    if store is None:
        return 0.0
    views = ViewDataset(listing, settings, settings.seed)
    places = {int(place) for place in np.linspace(0, len(views) - 1, min(IMAGES_COUNTED, len(views)))}
    readable = [index for index in sorted(places) if listing.paths[index] not in store.skipped]
    kept = [len(views.views(0, index, index, store.size(listing.paths[index])).kept) for index in readable]
    return float(np.mean(kept)) if kept else 0.0


def advice(settings: RunSettings, schedule: Schedule, image_count: int, boxes: float) -> list[str]:
    """Return warnings about the learning rate, and about queues that do not suit the data or the schedule.

    Args:
        settings: settings of the run.
        schedule: schedule of the run.
        image_count: number of images.
        boxes: expected number of boxes per view.
    """
    queues, warnings = {}, []
    if settings.optimizer == "adamw" and schedule.peak_lr > ADAMW_HIGHEST_LR:
        warnings.append(
            f"--lr {settings.lr:g} is a peak learning rate of {schedule.peak_lr:.2g}, high for AdamW, whose steps do "
            "not shrink with the gradients; give --lr 0.001 or so"
        )
    if settings.negatives == "batch":
        return warnings
    if settings.weight_image:
        queues["image"] = (settings.image_queue, 1.0)
    if settings.uses_boxes and settings.weight_box and boxes:
        queues["box"] = (settings.box_queue, boxes)
    for kind, (length, keys_per_image) in queues.items():
        epoch_keys = image_count * keys_per_image
        if length > epoch_keys:
            warnings.append(
                f"the {kind} queue of {length} keys is longer than an epoch's {epoch_keys:.0f}: an image is among its "
                f"own negatives; give --{kind}-queue {max(int(epoch_keys), 1)} or less"
            )
        fill = length / (settings.batch_size * keys_per_image)
        if schedule.warmup_steps < FILLS_IN_WARMUP * fill:
            fitting = int(schedule.warmup_steps * settings.batch_size * keys_per_image / FILLS_IN_WARMUP)
            wanted = FILLS_IN_WARMUP * fill
            longer = f"--warmup-epochs {wanted / schedule.steps_per_epoch:.3g}, "
            # The warm-up is at most half of the run.
            longer = longer if wanted <= schedule.steps / 2 else f"a run of {math.ceil(2 * wanted)} steps with {longer}"
            warnings.append(
                f"the {kind} queue takes {fill:.0f} steps to fill its random start with real keys, the warm-up is over "
                f"after {schedule.warmup_steps:.0f}: a run that learns from random keys collapses; give "
                f"{longer}or --{kind}-queue {max(fitting, 1)} or less"
            )
    return warnings
