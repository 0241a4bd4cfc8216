"""Write the backbone of a finished run as the hub ships it: `python -m studies.scenes.checkpoint RUN OUT`.

Tensors are rounded to float16. The pyramid is left out: with it, the file would exceed 15 MB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from ccop_hub.files import write_atomically
from ccop_hub.formats.checkpoint import read_checkpoint, save_checkpoint

from .plan import PLACES

RECOMPUTED = ("digest", "file", "fingerprint")
"""Facts that describe the file, not the network."""

SET = "4,500 synthetic scenes"


def write(run: Path, out: Path) -> Path:
    """Write the backbone and the settings of a run; return the path of the safetensors file."""
    weights = read_checkpoint(run)
    tensors = {
        name: value.half() if value.is_floating_point() else value
        for name, value in weights.tensors.items()
        if name.startswith("backbone.")
    }
    facts = {name: value for name, value in weights.facts.items() if name not in RECOMPUTED}
    facts["dataset"] = {**facts["dataset"], "name": SET}
    file = save_checkpoint(out, tensors, {**facts, "parts": ["backbone"], "arch": weights.arch})
    settings = yaml.safe_load((run / "settings.yaml").read_text(encoding="utf-8"))
    kept = {name: value for name, value in settings.items() if name not in PLACES}
    write_atomically(out / "settings.yaml", yaml.safe_dump(kept, sort_keys=False))
    return file


def main() -> None:
    """Write one run's network."""
    parser = argparse.ArgumentParser(prog="python -m studies.scenes.checkpoint", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("out", type=Path, help="folder to write")
    given = parser.parse_args()
    print(write(given.run, given.out))


if __name__ == "__main__":
    main()
