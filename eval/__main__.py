"""Run `ccop-eval` as `python -m ccop_eval`."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
