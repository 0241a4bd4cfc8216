"""`ccop-eval linear`: linear classifiers on frozen, average-pooled res5, with the same batches for all sides."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from PIL import Image
from torch import Tensor

from ccop_hub.errors import UserError

from ..common import pictures
from ..common.compute import derived_seed
from ..common.images import SeededImages, class_means, read_splits, test_transform, train_transform
from ..protocols import LINEAR_PROTOCOLS, apply_settings
from ..results.class_names import shown_class
from ..results.intervals import mean_statistic
from ..results.result import Result
from ..settings import LinearSettings
from .driver import Measurement, Probe, ProbeData, Run, run_probe
from .heads import head_specs
from .linear_training import LinearTraining

HOLDOUT_DRAW = 1
"""Separates the hold-out's seed from those of order and heads (see `linear_training`)."""


def run(settings: LinearSettings) -> Result:
    """Run the linear probe and write `result.json`, pictures and resumable state to `settings.out`."""
    return run_probe(LinearProbe(settings))


class LinearProbe(Probe[LinearSettings]):
    """Trains a grid of linear heads, selects the best on held-out training images, and scores it."""

    task = "linear"

    def read(self) -> ProbeData:
        """Read both splits and draw the hold-out."""
        self.protocol, self.protocol_id = apply_settings(LINEAR_PROTOCOLS[self.settings.protocol], self.settings)
        self.train, self.val = read_splits(self.settings.data)
        self.kept, self.holdout = split_holdout(
            self.train.labels, self.protocol.holdout, self.settings.seed, self.train.classes
        )
        data = self.settings.data
        return ProbeData(
            name=data.name, root=data, files=[*self.train.paths, *self.val.paths], images=len(self.val.paths)
        )

    def measure(self, run: Run[LinearSettings]) -> Measurement:
        """Train all heads, select one per side, and score it on the validation images."""
        training = LinearTraining(
            run.fabric, self.settings, self.protocol, run.networks, self.train, self.val, self.kept, self.holdout
        )
        training.train(run.folder, run.identity)
        chosen, scored, heads = training.choose()
        names = ("top1", "top5") if len(self.val.classes) > 5 else ("top1",)
        hits = {
            side: {name: getattr(found, name)[chosen[side]].numpy() for name in names} for side, found in scored.items()
        }
        predicted = {side: found.predicted[chosen[side]] for side, found in scored.items()}
        specs = head_specs(self.protocol)
        return Measurement(
            statistics={side: mean_statistic(values) for side, values in hits.items()},
            per_class={side: {"top1": class_means(values["top1"], self.val)} for side, values in hits.items()},
            pictures={"training-views": self._draw_views, "scored-images": lambda: self._draw_scored(predicted)},
            curves=training.curves,
            rates={side: specs[index].rate for side, index in chosen.items()},
            details={"heads": heads, "chosen": {side: specs[index].label for side, index in chosen.items()}},
            notes=self._notes(run),
        )

    def _notes(self, run: Run[LinearSettings]) -> list[str]:
        notes = []
        if self.holdout:
            notes.append(f"heads were chosen on {len(self.holdout)} training images that they were not trained on")
        if run.fabric.device.type != "cuda" and run.fabric.world_size > 1 and self.protocol.normalised:
            notes.append("batch-normalised heads took their statistics from each process's own part of a batch")
        return notes

    def _draw_views(self) -> Image.Image:
        """Draw training views as the networks see them."""
        views = SeededImages(self.train.paths, train_transform(self.protocol.image_size), self.settings.seed, epoch=0)
        spread = [self.kept[position] for position in pictures.spread(len(self.kept), 16)]
        names = [shown_class(self.train.classes[self.train.labels[index]]) for index in spread]
        tiles = [(pictures.from_tensor(views[index][0]), name) for index, name in zip(spread, names, strict=True)]
        return pictures.sheet(pictures.in_rows(tiles, 8), (112, 112))

    def _draw_scored(self, predicted: Mapping[str, Tensor]) -> Image.Image:
        """Draw scored images with their class and each side's prediction."""
        classes = [shown_class(name) for name in self.train.classes]
        images = SeededImages(self.val.paths, test_transform(self.protocol.image_size))
        tiles = []
        for index in pictures.spread(len(images), 24):
            guesses = "\n".join(f"{side}: {classes[int(values[index])]}" for side, values in predicted.items())
            caption = f"{classes[self.val.labels[index]]}\n{guesses}"
            tiles.append((pictures.from_tensor(images[index][0]), caption))
        return pictures.sheet(pictures.in_rows(tiles, 8), (112, 112))


def split_holdout(labels: list[int], holdout: float, seed: int, classes: list[str]) -> tuple[list[int], list[int]]:
    """Split indices into training and hold-out; holds out the same fraction of each class, at least one image.

    Args:
        labels: class index of each training image.
        holdout: fraction to hold out; 0 holds out nothing.
        seed: seed of the split.
        classes: class names, for error messages.

    Raises:
        UserError: a class has too few images to split.
    """
    if holdout == 0:
        return list(range(len(labels))), []
    generator = torch.Generator().manual_seed(derived_seed(seed, HOLDOUT_DRAW))
    kept, held = [], []
    values = torch.tensor(labels)
    for label, name in enumerate(classes):
        members = (values == label).nonzero().flatten()
        if len(members) < 2:
            raise UserError(
                f"class {name} has {len(members)} training image, but a hold-out needs two: add images, or use "
                "--protocol linear-moco-lr30, which has no hold-out"
            )
        shuffled = members[torch.randperm(len(members), generator=generator)].tolist()
        count = max(1, round(holdout * len(members)))
        held += shuffled[:count]
        kept += shuffled[count:]
    return sorted(kept), sorted(held)
