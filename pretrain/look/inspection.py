"""Preview of a run: picture sheets and a table of counts."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from ccop_hub.console import next_step
from ccop_hub.files import make_folder, write_atomically
from ccop_hub.images import UnreadableImageError
from ccop_hub.locks import folder_lock
from ccop_hub.markup import visible
from ccop_hub.notebook import summary_html

from ..common.seeding import derive_seed, seeded_cpu
from ..method.curriculum import Curriculum
from ..method.jitter import Candidates, draw_jitters, key_candidates
from ..settings import InspectSettings, RunSettings
from ..views.dataset import ViewDataset
from ..views.geometry import Boxes, render_view
from ..views.listing import ImageListing
from ..views.photometric import PhotometricAugmentation
from . import pictures

STAGES = (0.0, 0.5, 1.0)
"""Points of the curriculum to draw, as fractions of training."""

EPOCHS_LOOKED_AT = 10
"""Number of epochs to search for views in which a box survives; the first match is drawn."""

AUGMENTED = 5
"""Number of augmented copies per image on the augmentation sheet."""


@dataclass(frozen=True)
class Inspection:
    """Result of `inspect`: picture sheets and a table of counts.

    Attributes:
        measures: measure -> formatted value.
        sheets: paths of the picture sheets.
        draws: number of view pairs drawn to compute the table.
    """

    measures: dict[str, str]
    sheets: list[Path]
    draws: int

    def _repr_html_(self) -> str:
        return summary_html(f"{self.draws} draws of two views", self.measures, self.sheets)


def run(settings: InspectSettings) -> Inspection:
    """Write `proposals.png`, `views.png`, `jitters.png`, `augmentation.png` and `summary.csv`."""
    listing = ImageListing.open(settings.images, settings.proposals, settings, exclude=[settings.out])
    make_folder(settings.out)
    with folder_lock(settings.out):
        sheets = write_sheets(listing, settings, settings.out, settings.count)
        rows = summarise(listing, settings, settings.draws)
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([("measure", "value"), *rows])
        write_atomically(settings.out / "summary.csv", text.getvalue())
    return Inspection(dict(rows), sheets, settings.draws)


def show(inspection: Inspection, settings: InspectSettings) -> None:
    """Print the table, the paths of the sheets and the next step."""
    table = Table("measure", "value", title=f"{inspection.draws} draws of two views")
    for name, value in inspection.measures.items():
        table.add_row(name, Text(visible(value)))
    console = Console()
    console.print(table)
    for path in inspection.sheets:
        console.print(visible(path), soft_wrap=True, highlight=False, markup=False)
    where = ("--images", settings.images, "--proposals", settings.proposals)
    next_step("ccop-pretrain", "run", *where, "--out", "RUN")


def write_sheets(
    listing: ImageListing, settings: InspectSettings | RunSettings, folder: Path, count: int
) -> list[Path]:
    """Draw the sheets for `count` images spread over the listing; the box sheets need proposals."""
    dataset = ViewDataset(listing, settings, settings.seed)
    samples = collect_samples(dataset, count)
    written = [folder / "views.png", folder / "augmentation.png"]
    pictures.draw_views(samples, written[0])
    pictures.draw_augmentation(samples[:4], written[1])
    if listing.proposals is not None:
        written.insert(0, folder / "proposals.png")
        pictures.draw_proposals(samples, written[0])
        with_boxes = [sample for sample in samples if len(sample.views.kept)]
        jittered = [(sample, *_jitter_one(sample, settings, row)) for row, sample in enumerate(with_boxes)]
        if jittered and settings.jitters:
            written.append(folder / "jitters.png")
            pictures.draw_jitters(jittered[:4], written[-1])
    return written


def collect_samples(dataset: ViewDataset, count: int) -> list[pictures.ImageSample]:
    """Read images spread over the listing, skipping unreadable ones, and crop their views as in training."""
    images = len(dataset)
    samples = []
    for index in dict.fromkeys(int(place) for place in np.linspace(0, images - 1, min(count, images))):
        try:
            image = dataset.listing.read(index)
        except UnreadableImageError:
            continue
        boxes = dataset.boxes(index)
        looks = (dataset.views(epoch, index, index, image.size) for epoch in range(EPOCHS_LOOKED_AT))
        epoch, views = next(((epoch, views) for epoch, views in enumerate(looks) if len(views.kept)), (0, None))
        views = views or dataset.views(0, index, index, image.size)
        pixels, size = np.array(image), dataset.settings.image_size
        query, key = (render_view(pixels, view, size) for view in (views.query, views.key))
        with seeded_cpu(derive_seed("sheet", dataset.seed, index)):
            augmented = PhotometricAugmentation(dataset.settings).augment(query.expand(AUGMENTED, -1, -1, -1))
        samples.append(
            pictures.ImageSample(
                name=dataset.listing.paths[index],
                image=pixels,
                proposals=boxes,
                epoch=epoch,
                views=views,
                query=_pixels(query),
                key=_pixels(key),
                augmented=[_pixels((copy * 255).round().byte()) for copy in augmented],
            )
        )
    return samples


def summarise(listing: ImageListing, settings: InspectSettings, draws: int) -> list[tuple[str, str]]:
    """Count boxes and valid jitters over `draws` view pairs drawn as in training: (measure, value) rows."""
    proposals = listing.proposals
    if proposals is None:
        raise ValueError("the counts are of boxes: open the listing with its proposals")
    dataset = ViewDataset(listing, settings, settings.seed)
    usable = [index for index, name in enumerate(listing.paths) if name in proposals]
    counts: list[int] = []
    valid = {stage: [0, 0] for stage in STAGES}
    for draw in range(draws):
        epoch, place = divmod(draw, len(usable))
        index = usable[place]
        views = dataset.views(epoch, index, index, proposals.size(listing.paths[index]))
        counts.append(len(views.kept))
        for stage in STAGES:
            jitters = candidates_at(stage, torch.from_numpy(views.key.boxes), settings, draw).valid[:, :-1]
            valid[stage][0] += int(jitters.sum())
            valid[stage][1] += jitters.numel()
    boxes = np.array(counts)
    rows = [
        ("images with proposals", str(len(usable))),
        ("proposals an image", f"{np.mean([len(dataset.boxes(index)) for index in usable]):.1f}"),
        ("boxes a view, mean", f"{boxes.mean():.1f}"),
        ("boxes a view, median", f"{np.median(boxes):.0f}"),
        ("draws without a box", f"{(boxes == 0).mean():.1%}"),
    ]
    for stage, (good, of) in valid.items():
        rows.append((f"valid jitters at {stage:.0%} of training", f"{good / of:.1%}" if of else "no jitters"))
    return rows


def candidates_at(progress: float, boxes: Tensor, settings: InspectSettings | RunSettings, draw: int) -> Candidates:
    """Return the candidates for (N, 4) key boxes at `progress` (0..1) of training."""
    curriculum = Curriculum(settings.iou_threshold, settings.centre_magnitude, settings.size_magnitude, 1)
    with seeded_cpu(derive_seed("inspect", settings.seed, draw)):
        draws = draw_jitters([len(boxes)], settings.jitters)
    size = settings.image_size
    return key_candidates(boxes, draws, curriculum.noise(torch.tensor(progress)), (size, size))


def _jitter_one(
    sample: pictures.ImageSample, settings: InspectSettings | RunSettings, draw: int
) -> tuple[Boxes, Sequence[pictures.JitterStage]]:
    """Pick the key box closest in size to a third of the view, and jitter it at every stage."""
    boxes = sample.views.key.boxes
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    box = boxes[np.abs(sides - settings.image_size / 3).argmin()]
    stages = []
    for progress in STAGES:
        candidates = candidates_at(progress, torch.from_numpy(box[None]), settings, draw)
        first, last = settings.iou_threshold
        stages.append(
            pictures.JitterStage(
                progress,
                first + (last - first) * progress,
                candidates.boxes[0, :-1].numpy(),
                candidates.valid[0, :-1].numpy(),
            )
        )
    return box, stages


def _pixels(image: Tensor) -> pictures.Pixels:
    pixels: pictures.Pixels = image.permute(1, 2, 0).contiguous().numpy()
    return pixels
