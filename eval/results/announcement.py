"""Print the result of a finished evaluation."""

from __future__ import annotations

from pathlib import Path

from ccop_hub.console import next_step, table_console
from ccop_hub.markup import visible

from .comparison import group_results
from .result import RESULT_FILE, Result
from .tables import print_group


def announce(result: Result, out: Path) -> None:
    """Print the metrics, protocol id, loaded parts, effective learning rate and output files.

    Args:
        result: the evaluation's result.
        out: the run's folder.
    """
    console = table_console()
    for group in group_results([result]):
        print_group(console, group)
    rate = "none" if result.effective_lr is None else f"{result.effective_lr:g}"
    told = visible(f"protocol {result.protocol}; loaded {result.loaded}; effective lr {rate}")
    console.print(told, soft_wrap=True, markup=False)
    console.print(visible(f"wrote {out / RESULT_FILE}, with pictures beside it"), soft_wrap=True, markup=False)
    next_step("ccop-eval", "compare", out, "--html", out / "comparison.html")
