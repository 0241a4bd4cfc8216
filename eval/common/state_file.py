"""Lightning's reader of the state that a run resumes from, without anything in it that could run code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO

from ccop_hub.formats.training_state import read_training_state


class PlainState(TorchCheckpointIO):
    """Reads only tensors and plain values."""

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read one file onto the CPU.

        Raises:
            UserError: it holds something else, or is damaged.
        """
        return read_training_state(
            Path(path), "give --overwrite to start anew, or another --out", map_location or "cpu"
        )
