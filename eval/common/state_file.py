"""Lightning checkpoint I/O for resumable state, restricted to data that cannot execute code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from ccop_hub.formats.training_state import read_training_state


class PlainState(TorchCheckpointIO):
    """Writes a state directly to its destination, and reads only tensors and plain values.

    Lightning's own class writes to the temporary folder first, which may be on a small disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write one file."""
        with Path(path).open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read one file onto the CPU.

        Raises:
            UserError: the file is corrupt or contains anything but tensors and plain values.
        """
        return read_training_state(
            Path(path), "give --overwrite to start over, or another --out", map_location or "cpu"
        )
