"""`ccop-hub embed`: features of images or boxes, written to a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..frozen_network import FrozenNetwork
from ..image_sources.skipped import SkippedImages, require_readable
from ..image_sources.source import open_source
from ..image_sources.stored_images import ImageSource
from ..locks import output_lock
from ..markup import utf8_text, visible
from ..notebook import summary_html
from ..progress import Progress, announce
from ..settings import EmbedSettings
from ..sources.resolve import resolve
from ..stopping import stoppable
from .boxes import open_boxes
from .extraction import batches, box_extractor, choose_device, image_extractor, parts_of, read_views
from .output import FeatureFile, RowTable, check_output, collecting, write_output, written_files
from .views import View, Views


@dataclass(frozen=True)
class Embedded:
    """Features that were written.

    Attributes:
        path: the file of features.
        files: all files that were written.
        rows: number of rows, one per image or box.
        dimension: number of features in a row.
        images: number of images listed.
        skipped: reason for each image that could not be used, by key.
        facts: weights, images and settings, as recorded in the output.
    """

    path: Path
    files: tuple[Path, ...]
    rows: int
    dimension: int
    images: int
    skipped: Mapping[str, str]
    facts: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return {
            "path": str(self.path),
            "files": [str(path) for path in self.files],
            "rows": self.rows,
            "dimension": self.dimension,
            "images": self.images,
            "skipped": dict(self.skipped),
            **self.facts,
        }

    def _repr_html_(self) -> str:
        rows = {"rows": f"{self.rows:,}", "dimension": str(self.dimension), "images": f"{self.images:,}"}
        return summary_html(str(self.path), {**rows, "features": str(self.facts["features"])})


def run(settings: EmbedSettings) -> Embedded:
    """Compute the features and write them, in the order of the image keys.

    Raises:
        UserError: the images, boxes or weights are unusable, another process is writing the output, or it cannot be
            written.
    """
    check_output(settings.out, settings.overwrite)
    device = choose_device(settings.accelerator)
    announce(f"listing {settings.images}")
    source = open_source(settings.images)
    boxes = None if settings.boxes is None else open_boxes(settings.boxes, source)
    views = Views(source, settings.resize_mode, settings.side, settings.max_pixels, boxes)
    announce(f"loading {settings.weights}")
    weights = resolve(settings.weights, settings.backbone, settings.seed)
    network = FrozenNetwork(weights, parts_of(settings.features)).to(device)
    rows = RowTable(ids=None if source.ids is None else [], boxes=None if boxes is None else [])
    skipped = SkippedImages()
    with stoppable(), output_lock(settings.out), collecting(settings.out) as features:
        _extract(settings, views, network, features, rows, skipped)
        if not features.rows:
            what = "no image has a box" if boxes is not None else "no image can be read"
            raise UserError(f"{settings.images}: {what}, so there is nothing to embed ({skipped.summary()})")
        facts = {
            "features": settings.features,
            "weights": {"name": weights.name, "digest": weights.digest, "backbone": weights.arch},
            "source": {"name": visible(source.name), "digest": f"sha256:{source.digest}", "images": len(source)},
            "boxes": None if settings.boxes is None else visible(settings.boxes),
            "resize": settings.resize_mode,
            "image_size": settings.side,
            "versions": {"torch": str(torch.__version__)},
        }
        write_output(settings.out, features, rows, facts)
    return Embedded(
        settings.out,
        tuple(written_files(settings.out)),
        features.rows,
        features.dimension,
        len(source),
        skipped.reasons(),
        facts,
    )


def _extract(
    settings: EmbedSettings,
    views: Views,
    network: FrozenNetwork,
    features: FeatureFile,
    rows: RowTable,
    skipped: SkippedImages,
) -> None:
    """Append the features of all usable images, and what they belong to, in the order of the source."""
    of_images, of_boxes = image_extractor(network, settings.features), box_extractor(network, settings.features)
    with Progress("embedding", len(views)) as progress:
        for batch in batches(read_views(views, settings.workers), settings.batch_size):
            usable = [view for view in batch if not view.problem]
            for view in batch:
                if view.problem:
                    skipped.add(_key(views.source, view), view.problem)
            require_readable(skipped, len(views), settings.max_unreadable)
            if rows.boxes is not None:
                usable = [view for view in usable if len(view.boxes)]
            if usable:
                found = of_images(usable) if rows.boxes is None else torch.cat([of_boxes(view) for view in usable])
                _require_finite(found, network)
                features.append(found.numpy())
            for view in usable:
                count = 1 if rows.boxes is None else len(view.boxes)
                rows.images += [_key(views.source, view)] * count
                if rows.ids is not None and views.source.ids is not None:
                    rows.ids += [int(views.source.ids[view.index])] * count
                if rows.boxes is not None:
                    rows.boxes.append(view.boxes.numpy())
            for _ in batch:
                progress.advance()


def _key(source: ImageSource, view: View) -> str:
    return utf8_text(source.keys[view.index])


def _require_finite(features: torch.Tensor, network: FrozenNetwork) -> None:
    if not torch.isfinite(features).all():
        raise UserError(
            f"{network.weights.name} computes features that are not finite (NaN or infinity): the weights are damaged "
            "or diverged; use others"
        )
