"""The state that a run resumes from, as Lightning writes and reads it; nothing in it can run code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from ccop_hub.formats.training_state import read_training_state


class PlainState(TorchCheckpointIO):
    """Writes a state where it belongs, and reads only tensors and plain values.

    Lightning's own class writes it to the folder of temporary files first, which may be on a small disk.
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
            UserError: it contains something else, or is damaged.
        """
        return read_training_state(
            Path(path), "give --overwrite to start over, or another --out", map_location or "cpu"
        )
