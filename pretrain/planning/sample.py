"""A few images like the planned ones: taken from the user's, or synthetic."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.image_sources.source import open_source
from ccop_hub.image_sources.stored_images import ImageSource
from ccop_hub.images import UnreadableImageError
from ccop_hub.synthetic.painting import paint_scene

from ..settings import PlanSettings

SAMPLED = 32
"""Number of the user's images to measure, spread over the listing."""

DRAWN = 12
"""Number of synthetic images."""

JPEG_QUALITY = 90


def write_sample(settings: PlanSettings, folder: Path) -> ImageSource:
    """Write the sample to a new folder and list it.

    Raises:
        UserError: `sample` contains no readable image.
    """
    folder.mkdir()
    if settings.sample is None:
        for number in range(DRAWN):
            scene = paint_scene(np.random.default_rng(number), settings.sample_side)
            Image.fromarray(scene.image).save(folder / f"{number:03d}.jpg", quality=JPEG_QUALITY)
        return open_source(folder)
    source = open_source(settings.sample)
    places = sorted({int(place) for place in np.linspace(0, len(source) - 1, min(SAMPLED, len(source)))})
    for place in places:
        stored = source[place]
        try:
            stored.read()
        except UnreadableImageError:
            continue
        (folder / f"{place:09d}{PurePosixPath(stored.key).suffix}").write_bytes(stored.read_bytes())
    if not any(folder.iterdir()):
        raise UserError(f"none of {len(places)} images of {settings.sample} can be read; give another --sample")
    return open_source(folder)
