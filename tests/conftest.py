"""Configuration shared by all tests."""

import os
import signal
from pathlib import Path

# Compiling the selective search takes half a minute: do it once per checkout, not for every test's own cache.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "kernels"))

# `nohup` and a shell's `&` start the tests with these signals ignored, and the programs leave ignored signals alone.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
