"""Final output of `ccop-pretrain proposals`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ccop_hub.console import next_step
from ccop_hub.images import describe_passed_over
from ccop_hub.markup import visible
from ccop_hub.proposals.shards import SKIPPED

from .check import CheckReport
from .run import ProposalsResult


def report(result: ProposalsResult | CheckReport) -> int:
    """Print a result and the next step.

    Returns:
        The exit code: 1 if `--check` found images without proposals, else 0.
    """
    if isinstance(result, CheckReport):
        return _report_check(result)
    if result.share is not None:
        part = f"{result.share.number}/{result.share.of}"
        print(f"part {part} is searched: {result.proposed} images; {result.skipped.summary()}")
    else:
        print(
            f"{result.boxes} boxes in {result.proposed} images ({(result.boxes or 0) / result.proposed:.1f} per image, "
            f"{result.empty} with none)"
        )
        print(result.skipped.summary() + (f"; all in {result.folder / SKIPPED}" if result.skipped else ""))
    if result.passed_over:
        print(f"passed over {describe_passed_over(result.passed_over)}")
    if result.share is not None:
        print(f"next: once all {result.share.of} parts are done, the same command without --shard, to join them")
        return 0
    print(f"proposals: {result.folder}")
    if result.coco is not None:
        print(f"COCO JSON: {result.coco[0]} ({result.coco[1]} boxes)")
    where = ("--images", result.images, "--proposals", result.folder)
    next_step("ccop-pretrain", "run", *where, "--out", "RUN")
    return 0


def _report_check(report: CheckReport) -> int:
    table = Table("measure", "value", title=Text(visible(f"proposals in {report.folder}")))
    for name, value in report.measures.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    if report.note:
        print(visible(f"note: {report.note}"))
    if not report.missing:
        return 0
    words = ("ccop-pretrain", "proposals", report.images, "--out", report.folder)
    next_step(*words, note="with the same settings as the first time")
    return 1
