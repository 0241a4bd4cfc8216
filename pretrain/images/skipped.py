"""The images that a run leaves out, with the reasons."""

from __future__ import annotations

import csv
from pathlib import Path

from ccop_hub.errors import UserError
from ccop_hub.files import make_folder, replacing


class SkippedImages:
    """Images left out of a run, by path, with the reason."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def __contains__(self, image: str) -> bool:
        return image in self._reasons

    def add(self, image: str, reason: str) -> None:
        """Record that `image` (its key) was left out; a second reason replaces the first."""
        self._reasons[image] = reason

    def reasons(self) -> dict[str, str]:
        """Reason by image, in the order of the paths."""
        return dict(sorted(self._reasons.items()))

    def write_csv(self, path: Path) -> None:
        """Write the columns `image,reason`, sorted by path; without images, only the header."""
        make_folder(path.parent)
        with (
            replacing(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("image", "reason"))
            writer.writerows(self.reasons().items())

    def summary(self, shown: int = 3) -> str:
        """One line: how many images were skipped, and the first `shown` of them with their reasons."""
        if not self._reasons:
            return "no image skipped"
        first = [f"{image} ({reason})" for image, reason in list(self.reasons().items())[:shown]]
        more = len(self) - len(first)
        noun = "image" if len(self) == 1 else "images"
        named = "; ".join(first).encode("utf-8", "backslashreplace").decode()  # names need not be UTF-8
        return f"{len(self)} {noun} skipped: {named}" + (f"; and {more} more" if more else "")


def require_readable(skipped: SkippedImages, images: int, allowed: float) -> None:
    """Check that no more than a share of the images is left out.

    Args:
        skipped: the images left out so far.
        images: number of images in all.
        allowed: share of them, 0 to 1.

    Raises:
        UserError: more are: a disk, a download or a converter is probably at fault, not single files.
    """
    if len(skipped) / images > allowed:
        raise UserError(
            f"{len(skipped)} of {images} images cannot be used, more than the fraction of {allowed:g} that "
            f"--max-unreadable allows ({skipped.summary()}); fix or remove them, or allow more"
        )
