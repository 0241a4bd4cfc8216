"""Printed output of `ccop-eval predict`."""

from __future__ import annotations

from ccop_hub.console import next_step
from ccop_hub.image_sources.skipped import SkippedImages
from ccop_hub.markup import visible

from .run import PICTURES, Prediction


def report(found: Prediction) -> None:
    """Print what was found, what was left out, and where to look."""
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
    print(f"{found.images} images: {counts}")
    if found.skipped:
        print(SkippedImages(found.skipped).summary())
    what = "predictions.json" if found.task == "detection" else "labels/"
    print(f"wrote {visible(found.folder / what)}")
    if found.pictures:
        next_step("python", "-m", "webbrowser", found.folder / PICTURES)
    else:
        next_step("ls", found.folder)
