"""Configuration shared by all tests."""

import os
from pathlib import Path

# Compiling the selective search takes half a minute: do it once per checkout, not for every test's own cache.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "kernels"))
