"""Keep the `result.json` of every evaluation of a study: `python -m studies.scenes.records WORK SCALE-DATA`.

The study's own result files summarise these records; `docs/leaderboard.md` is built from them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ccop_eval.results.result import RESULT_FILE, Result

from ccop_hub.errors import UserError
from ccop_hub.files import make_folder, write_atomically
from ccop_hub.regular_files import read_json

RECORDS = Path(__file__).parents[2] / "results" / "scenes"


def keep_records(work: Path, name: str, records: Path = RECORDS) -> list[Path]:
    """Copy the result of every evaluation below a study's working folder.

    Args:
        work: the working folder, `--out` of the study.
        name: SCALE-DATA, as its results are named.
        records: folder of the records.

    Returns:
        The written files, `records/SCALE-DATA/ARM-seedN/MEASURE[-OTHER]/result.json`.

    Raises:
        UserError: the working folder has no finished evaluation.
    """
    evaluations = work / "evaluations"
    found = sorted(evaluations.rglob(RESULT_FILE))
    if not found:
        raise UserError(f"{evaluations} contains no {RESULT_FILE}: give the --out folder of a study")
    written = []
    for file in found:
        Result.read(file)  # refuses a damaged one
        target = records / name / file.relative_to(evaluations)
        document = without_places(read_json(file), work)
        make_folder(target.parent)
        write_atomically(target, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        written.append(target)
    return written


def without_places(value: Any, work: Path) -> Any:
    """Shorten the absolute paths in a document: those of a study's runs to ARM-seedN, and others to their last part."""
    if isinstance(value, dict):
        return {key: without_places(item, work) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item, work) for item in value]
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    path = Path(value)
    for base in (work / "runs", work):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.name


def main(arguments: list[str] | None = None) -> int:
    """Copy the records and print their number."""
    parser = argparse.ArgumentParser(prog="python -m studies.scenes.records", description=__doc__)
    parser.add_argument("work", type=Path, help="working folder of the study")
    parser.add_argument("name", help="SCALE-DATA, such as cpu-packs")
    given = parser.parse_args(arguments)
    try:
        written = keep_records(given.work, given.name)
    except UserError as error:
        print(f"studies.scenes.records: {error}", file=sys.stderr)
        return 2
    print(f"wrote {len(written)} records below {RECORDS / given.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
