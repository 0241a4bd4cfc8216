"""`ccop-eval regions`: classify ground-truth boxes from frozen features."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import Weights

from ..common import pictures
from ..common.compute import derived_seed
from ..common.images import read_rgb
from ..frozen.driver import Measurement, Probe, ProbeData, Run, run_probe
from ..frozen.neighbours import class_votes, nearest_neighbours
from ..protocols import RegionProtocol, apply_settings
from ..results.result import Result
from ..settings import RegionSettings
from .accuracy import accuracy_statistic, class_accuracy
from .balanced import ChosenHead, Standardiser, balanced_votes, choose_head
from .coco_boxes import BoxedImages, read_splits
from .roi_features import Kind, ScaledImages, box_features

HOLDOUT_DRAW, QUERY_DRAW = 1, 4
"""Separate the seeds of different draws."""


def run(settings: RegionSettings) -> Result:
    """Run the region probe and write `result.json` and pictures to `settings.out`."""
    return run_probe(RegionProbe(settings))


class RegionProbe(Probe[RegionSettings]):
    """Classifies the validation boxes with a linear head and with kNN; both give every class the same weight."""

    task = "regions"

    def read(self) -> ProbeData:
        """Read the boxes of both splits and draw the hold-out."""
        self.protocol, _ = apply_settings(RegionProtocol(), self.settings)
        self.train, self.val = read_splits(self.settings.data)
        self.kept, self.held = split_images(self.train, self.protocol.holdout, self.settings.seed)
        files = [self.train.annotations, self.val.annotations, *self.train.paths, *self.val.paths]
        contents = [split.changed for split in (self.train, self.val) if split.changed is not None]
        data = self.settings.data
        return ProbeData(name=data.name, root=data, files=files, contents=contents, images=len(self.val.paths))

    def adapt(self, sides: Mapping[str, Weights]) -> None:
        """Pool from the pyramid only if all weights have one; the protocol id records the choice."""
        self.kind = choose_features(self.settings, sides)
        self.parts = ("backbone", "fpn") if self.kind == "pyramid" else ("backbone",)
        base = RegionProtocol()
        _, self.protocol_id = apply_settings(dataclasses.replace(base, id=f"{base.id}-{self.kind}"), self.settings)

    def measure(self, run: Run[RegionSettings]) -> Measurement:
        """Fit a linear head for each side, and score it and kNN on the validation boxes."""
        truth = np.concatenate(self.val.labels)
        heads: dict[str, ChosenHead] = {}
        hits: dict[str, dict[str, np.ndarray]] = {}
        nearest: dict[str, np.ndarray] = {}
        for side in run.networks:
            train, val = self._features(run, side, self.train), self._features(run, side, self.val)
            heads[side] = self._head(train, run)
            knn, nearest[side] = self._neighbour_hits(run, train, val)
            hits[side] = {"knn": knn, "linear": heads[side].head.predict(val) == truth}
        return Measurement(
            statistics={side: accuracy_statistic(self.val, values) for side, values in hits.items()},
            per_class={
                side: {name: class_accuracy(self.val, value) for name, value in values.items()}
                for side, values in hits.items()
            },
            pictures={"nearest-regions": lambda: self._draw(run, nearest)},
            details={
                "heads": {side: chosen.tried for side, chosen in heads.items()},
                "chosen": {side: f"penalty {chosen.penalty:g}" for side, chosen in heads.items()},
            },
            notes=self._notes(),
        )

    def _head(self, features: np.ndarray, run: Run[RegionSettings]) -> ChosenHead:
        """Fit a side's linear head to the features of the training boxes."""
        labels, classes = np.concatenate(self.train.labels), len(self.train.classes)
        return choose_head(features, labels, classes, self.kept, self.held, self.protocol.penalties, run.fabric.device)

    def _features(self, run: Run[RegionSettings], side: str, split: BoxedImages) -> np.ndarray:
        """(boxes, D) float32 features of a split."""
        short, long = self.protocol.short_side, self.protocol.long_side
        images = ScaledImages(split, short, long)
        return run.features(
            side,
            split.paths,
            split.counts,
            box_features(run.fabric, images, run.networks[side], self.kind, self.settings.workers),
            self.settings.cache,
            split=split.annotations.name,
            transform=f"short side {short}, long side {long}",
            features=f"boxes from {self.kind}",
        )

    def _neighbour_hits(
        self, run: Run[RegionSettings], bank: np.ndarray, queries: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the kNN's hits, (N,) bool, and the nearest training boxes, (N, k)."""
        labels = np.concatenate(self.train.labels)
        k = min(self.protocol.neighbours, len(labels))
        standardiser = Standardiser.of(bank)
        similarity, index = nearest_neighbours(bank, queries, k, run.fabric.device, standardiser)
        votes = balanced_votes(class_votes(similarity, index, labels.tolist(), k, self.protocol.temperature), labels)
        hits: np.ndarray = votes.argmax(1).numpy() == np.concatenate(self.val.labels)
        return hits, index.numpy()

    def _notes(self) -> list[str]:
        boxes = f"{sum(self.val.counts)} boxes scored, {sum(self.train.counts)} boxes of training images"
        return [
            *(split.note for split in (self.train, self.val) if split.note),
            f"{boxes}, of which {len(self.held)} chose the penalty",
            "pooled from the feature pyramid"
            if self.kind == "pyramid"
            else "pooled from the backbone's four stages, no pyramid",
        ]

    def _draw(self, run: Run[RegionSettings], nearest: Mapping[str, np.ndarray]) -> Image.Image:
        """Draw some validation boxes with their nearest training boxes, one row per side."""
        count = sum(self.val.counts)
        generator = np.random.default_rng(derived_seed(self.settings.seed, QUERY_DRAW))
        queries = np.sort(generator.choice(count, size=min(6, count), replace=False))
        rows: list[list[pictures.Tile]] = []
        titles: list[str] = []
        for query in queries.tolist():
            for side, index in nearest.items():
                picture, name = _crop(self.val, query)
                found = [_crop(self.train, row) for row in index[query][:7].tolist()]
                rows.append([(picture, f"query:\n{name}"), *found])
                titles.append(run.title(side))
        return pictures.sheet(rows, (96, 96), titles)


def choose_features(settings: RegionSettings, sides: Mapping[str, Weights]) -> Kind:
    """Choose the feature maps to pool from, the same for all sides so that only the weights differ.

    Raises:
        UserError: the settings ask for the pyramid, but some weights have none.
    """
    without = [weights.name for weights in sides.values() if "fpn" not in weights.parts]
    if settings.features == "pyramid" and without:
        raise UserError(f"{', '.join(without)} has no feature pyramid: pass --features stages to compare the backbones")
    if settings.features == "auto":
        return "stages" if without else "pyramid"
    return settings.features


def split_images(train: BoxedImages, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split box rows into training and hold-out by image, since boxes of the same image are similar.

    Raises:
        UserError: `holdout` is not between 0 and 1, or there are fewer than two images or boxes to train on.
    """
    count = len(train.paths)
    if not 0 < holdout < 1 or count < 2:
        raise UserError(
            f"--holdout {holdout:g} of {count} training images: use a fraction between 0 and 1, and at least two images"
        )
    order = np.random.default_rng(derived_seed(seed, HOLDOUT_DRAW)).permutation(count)
    held_images = order[: min(count - 1, max(1, round(holdout * count)))]
    held = np.isin(train.owners, held_images)
    if (~held).sum() < 2:
        raise UserError(f"{train.annotations} leaves {(~held).sum()} boxes to train on besides the hold-out: give more")
    return np.flatnonzero(~held), np.flatnonzero(held)


def _crop(split: BoxedImages, row: int) -> tuple[Image.Image, str]:
    """Crop a box; returns its pixels and class name."""
    image = int(split.owners[row])
    within = row - sum(split.counts[:image])
    x1, y1, x2, y2 = split.boxes[image][within].tolist()
    box = (
        math.floor(x1),
        math.floor(y1),
        max(math.ceil(x2), math.floor(x1) + 1),
        max(math.ceil(y2), math.floor(y1) + 1),
    )
    return read_rgb(split.paths[image]).crop(box), split.classes[int(split.labels[image][within])]
