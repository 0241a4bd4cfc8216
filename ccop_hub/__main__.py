"""Entry point of `python -m ccop_hub`, for when the console script is not on `PATH`."""

import sys

from .cli import main

sys.exit(main())
