"""What all tests share."""

import os
from pathlib import Path

# Compiling the selective search takes half a minute: once for each checkout, not for each cache that a test makes.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "kernels"))
