"""`python -m ccop_eval`: the same program as `ccop-eval`."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
