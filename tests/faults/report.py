"""Generate the table in docs/reliability.md from raw results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "reliability.md"
FAULTS = REPO / "benchmarks" / "results" / "faults.json"


def write_page() -> None:
    """Rewrite the table between its markers."""
    text = PAGE.read_text(encoding="utf-8")
    body = faults_section(json.loads(FAULTS.read_text(encoding="utf-8")))
    marks = re.compile(r"(<!-- faults -->\n).*(<!-- end of faults -->)", re.DOTALL)
    PAGE.write_text(marks.sub(lambda match: f"{match[1]}{body}\n{match[2]}", text), encoding="utf-8")


def faults_section(results: dict[str, Any]) -> str:
    """A table with one row per kind of fault and fault."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for trial in results["trials"]:
        rows.setdefault((trial["kind"], trial["fault"]), []).append(trial)
    lines = ["| kind | fault | tried | held | lost | skipped |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for (kind, fault), trials in rows.items():
        skipped = sum(bool(trial["skipped"]) for trial in trials)
        lost = sum(bool(trial["lost"]) for trial in trials)
        tried = len(trials) - skipped
        lines.append(f"| {kind} | {fault} | {tried} | {tried - lost} | {lost} | {skipped} |")
    stated = f"{len(results['trials'])} trials on {results['date']} in {results['seconds']} s ({results['machine']})."
    failures = [
        f"- {trial['kind']}, {trial['fault']}, `{trial['command']}`: {trial['lost']}"
        for trial in results["trials"]
        if trial["lost"]
    ]
    return "\n".join([stated, "", *lines, *(["", "What was lost:", "", *failures] if failures else [])])
