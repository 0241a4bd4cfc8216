"""The generated sections of docs/reliability.md, from raw results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "reliability.md"
FAULTS = REPO / "benchmarks" / "results" / "faults.json"
SOAK = REPO / "benchmarks" / "results" / "soak.json"


def write_page() -> None:
    """Rewrite what stands between the marks of each section whose results exist."""
    text = PAGE.read_text(encoding="utf-8")
    for name, file, section in (("faults", FAULTS, faults_section), ("soak", SOAK, soak_section)):
        if file.is_file():
            body = section(json.loads(file.read_text(encoding="utf-8")))
            marks = re.compile(rf"(<!-- {name} -->\n).*(<!-- end of {name} -->)", re.DOTALL)
            text = marks.sub(lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text)
    PAGE.write_text(text, encoding="utf-8")


def faults_section(results: dict[str, Any]) -> str:
    """A table with a row for each kind of fault and each fault."""
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


def soak_section(results: dict[str, Any]) -> str:
    """What grew during a long run."""
    lines = ["| measured | after warm-up | at the end | growth |", "| --- | ---: | ---: | ---: |"]
    for name, (first, last) in results["measured"].items():
        lines.append(f"| {name} | {first:,.0f} | {last:,.0f} | {100 * (last / first - 1):+.2f} % |")
    stated = (
        f"{results['minutes']:g} minutes on {results['date']} ({results['machine']}): {results['steps']} steps of "
        f"pre-training with two worker processes; {results['kills']} random kills, {results['lost']} lost."
    )
    return "\n".join([stated, "", *lines])
