"""The leaderboard and the study's results agree with the records in `results/`."""

import json
from pathlib import Path

import ccop_eval
import pytest
from ccop_eval.results.result import RESULT_FILE, Result

ROOT = Path(__file__).parents[2]
SUMMARIES = sorted((ROOT / "studies" / "scenes" / "results").glob("*/*-seed*.json"))


def test_the_leaderboard_is_what_the_records_give() -> None:
    board = ccop_eval.leaderboard(ROOT / "results", ROOT / "docs" / "leaderboard.md", check=True)
    assert not board.stale, "run `make leaderboard`"


@pytest.mark.parametrize("summary", SUMMARIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_each_number_of_the_study_has_its_record(summary: Path) -> None:
    told = json.loads(summary.read_text(encoding="utf-8"))
    records = ROOT / "results" / "scenes" / summary.parent.name / summary.stem
    for measure, entry in told["measures"].items():
        others = [name.removeprefix("against ") for name in entry if name.startswith("against ")]
        for other in others or [""]:
            found = Result.read(records / "-".join(filter(None, (measure, other))) / RESULT_FILE)
            assert (found.protocol, found.data.digest, found.data.images) == (
                entry["protocol"],
                entry["digest"],
                entry["images"],
            )
            assert {name: found.metrics[name] for name in entry["metrics"]} == entry["metrics"]
            for name, pair in entry.get(f"against {other}", {}).items():
                assert found.paired[name].difference == pair["difference"]


def test_records_name_no_folder_of_a_machine() -> None:
    for record in (ROOT / "results").rglob(RESULT_FILE):
        assert '"/' not in record.read_text(encoding="utf-8"), record
