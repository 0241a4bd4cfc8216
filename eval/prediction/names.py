"""Names of the output files of images."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from ccop_hub.errors import UserError
from ccop_hub.files import write_atomically

OUTPUTS = ("predictions.json", "images.json", "labels", "pictures")
"""Files and folders that `predict` may write."""


STARTED = ".predict-started"
"""File in the output folder until the predictions are complete: what an interrupted command left is not worth asking
about."""


class FileNames:
    """Gives each image a path inside the output folder.

    Args:
        out: the output folder.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._taken: set[str] = set()

    def make_room(self, overwrite: bool) -> None:
        """Remove earlier predictions if they are incomplete or `overwrite` is on; mark the new ones as incomplete.

        Raises:
            UserError: the folder contains complete ones and `overwrite` is off.
        """
        existing = [self._out / name for name in OUTPUTS if (self._out / name).exists()]
        if existing and not overwrite and not (self._out / STARTED).exists():
            raise UserError(f"{existing[0]} exists: pass --overwrite to replace it, or another --out")
        for path in existing:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        write_atomically(self._out / STARTED, b"")

    def complete(self) -> None:
        """Mark the predictions as complete."""
        (self._out / STARTED).unlink(missing_ok=True)

    def of(self, key: str) -> str:
        """Return a unique relative path for the outputs of an image; keys may be absolute or lead outside a folder."""
        parts = [part for part in PurePosixPath(key).parts if part not in ("/", "..", ".")]
        base = name = "/".join(parts)
        number = 2
        while name in self._taken:
            name, number = f"{base}-{number}", number + 1
        self._taken.add(name)
        return name
