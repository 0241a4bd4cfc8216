"""Images left out of a run, and why."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from ..files import make_folder, replacing
from ..markup import visible


class SkippedImages:
    """Images left out of a run, with the reason for each path.

    Args:
        reasons: path -> reason of those known from the start.
    """

    def __init__(self, reasons: Mapping[str, str] | None = None) -> None:
        self._reasons = dict(reasons or {})

    def __len__(self) -> int:
        return len(self._reasons)

    def __contains__(self, image: str) -> bool:
        return image in self._reasons

    def add(self, image: str, reason: str) -> None:
        """Record that the image with key `image` was left out; a second reason replaces the first."""
        self._reasons[image] = reason

    def reasons(self) -> dict[str, str]:
        """Return the reason for each image, sorted by path."""
        return dict(sorted(self._reasons.items()))

    def write_csv(self, path: Path) -> None:
        """Write a CSV with the columns `image,reason`, sorted by path; only the header if no image was skipped."""
        make_folder(path.parent)
        with (
            replacing(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("image", "reason"))
            writer.writerows(self.reasons().items())

    def summary(self, shown: int = 3) -> str:
        """Return one line with the number of skipped images and the reasons for the first `shown`."""
        if not self._reasons:
            return "no image skipped"
        first = [f"{image} ({reason})" for image, reason in list(self.reasons().items())[:shown]]
        more = len(self) - len(first)
        noun = "image" if len(self) == 1 else "images"
        named = visible("; ".join(first))
        return f"{len(self)} {noun} skipped: {named}" + (f"; and {more} more" if more else "")


def require_readable(skipped: SkippedImages, images: int, allowed: float) -> None:
    """Check that at most a given fraction of the images is left out.

    Args:
        skipped: images left out so far.
        images: total number of images.
        allowed: maximum fraction left out, 0 to 1.

    Raises:
        UserError: more images are left out, which points to a faulty disk, download or converter.
    """
    if len(skipped) / images > allowed:
        raise UserError(
            f"{len(skipped)} of {images} images cannot be used, more than the fraction of {allowed:g} that "
            f"--max-unreadable allows ({skipped.summary()}); fix or remove them, or allow more"
        )
