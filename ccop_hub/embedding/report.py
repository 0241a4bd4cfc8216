"""Printed output of `ccop-hub embed`."""

from __future__ import annotations

from ..console import next_step
from ..image_sources.skipped import SkippedImages
from ..markup import visible
from .run import Embedded

_READERS = {
    ".npy": "import sys, numpy as np; print(np.load(sys.argv[1]).shape)",
    ".npz": "import sys, numpy as np; print({name: array.shape for name, array in np.load(sys.argv[1]).items()})",
    ".parquet": "import sys, pyarrow.parquet as pq; print(pq.read_table(sys.argv[1]).schema)",
}


def report(done: Embedded) -> None:
    """Print what was written, what was left out, and a command that reads it."""
    for path in done.files:
        print(f"wrote {visible(path)}")
    print(f"{done.rows} rows of {done.dimension} features ({done.facts['features']}), from {done.images} images")
    if done.skipped:
        print(SkippedImages(done.skipped).summary())
    reader = _READERS[done.path.suffix.lower()]
    next_step("python", "-c", reader, done.path)
