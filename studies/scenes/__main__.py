"""Run the study, or resume it: `python -m studies.scenes --out FOLDER [--data FOLDER] --scale cpu`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ccop_hub.errors import UserError

from .data import StudyData, copy_key, propose, shrink
from .plan import Plan
from .proposal_facts import write_proposal_facts
from .report import write_page
from .runs import Study, run_arm

STOPPED = 143
"""Exit code if a signal stopped a run; rerun the command to resume."""


def main(arguments: list[str] | None = None) -> int:
    """Run everything that has no result yet."""
    parser = argparse.ArgumentParser(prog="python -m studies.scenes", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="working folder; rerun with the same one to resume")
    parser.add_argument("--data", type=Path, help="folder of the packs; by default, a synthetic set is drawn")
    parser.add_argument("--scale", default="cpu", help="name of a scale in plan.yaml (smoke: seconds, no conclusions)")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="only these arms, `untrained` and `ccop` first")
    parser.add_argument("--results", type=Path, help="folder of the result files; OUT/results by default")
    parser.add_argument("--page", type=Path, help="Markdown page to write from the results after each run")
    given = parser.parse_args(arguments)
    try:
        return run(given.out, given.data, given.scale, given.results or given.out / "results", given.page, given.arms)
    except UserError as error:
        print(f"studies.scenes: {error}", file=sys.stderr)
        return 2


def run(
    out: Path, data: Path | None, scale: str, results: Path, page: Path | None, arms: Sequence[str] | None = None
) -> int:
    """Prepare the data, then run every arm with every seed, or only `arms`.

    Raises:
        UserError: the scale has no such arm.
    """
    os.environ["CCOP_CACHE"] = str((out / "cache").resolve())
    plan = Plan.read(scale)
    runs = plan.chosen(arms)
    given = StudyData.drawn(out / "drawn", plan.drawn) if data is None else StudyData.packs(data)
    device = "gpu" if scale == "gpu" else "cpu"
    study = Study(plan, given, out, results / f"{scale}-{given.name}", device)
    shrink(given.training, study.images, plan.shortest_side)
    propose(study.images, study.proposals)
    boxes = given.labelled["boxes"]
    folder = boxes / "train2017"
    place = given.training.index(folder)
    write_proposal_facts(
        study.images, study.proposals, boxes, lambda path: copy_key(place, path.relative_to(folder)), study.results
    )
    for arm, seed in runs:
        if not run_arm(study, arm, seed):
            return STOPPED
        if page is not None:
            write_page(results, page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
