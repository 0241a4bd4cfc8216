"""Generate the tables in docs/reliability.md from raw results."""

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
    """Rewrite the tables between their markers."""
    text = PAGE.read_text(encoding="utf-8")
    for name, path, section in (("faults", FAULTS, faults_section), ("soak", SOAK, soak_section)):
        if not path.exists():
            continue
        body = section(json.loads(path.read_text(encoding="utf-8")))
        marks = re.compile(rf"(<!-- {name} -->\n).*(<!-- end of {name} -->)", re.DOTALL)
        text = marks.sub(lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text)  # type: ignore[misc]
    PAGE.write_text(text, encoding="utf-8")


def faults_section(results: dict[str, Any]) -> str:
    """A table with one row per kind of fault and fault."""
    kinds = list(results["kinds"].values())
    trials = [trial for kind in kinds for trial in kind["trials"]]
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for trial in trials:
        rows.setdefault((trial["kind"], trial["fault"]), []).append(trial)
    lines = ["| kind | fault | tried | held | lost | skipped |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for (kind, fault), same in rows.items():
        skipped = sum(bool(trial["skipped"]) for trial in same)
        lost = sum(bool(trial["lost"]) for trial in same)
        tried = len(same) - skipped
        lines.append(f"| {kind} | {fault} | {tried} | {tried - lost} | {lost} | {skipped} |")
    dates, machines = ({kind[name] for kind in kinds} for name in ("date", "machine"))
    stated = (
        f"{len(trials)} trials on {' to '.join(sorted({min(dates), max(dates)}))} "
        f"({'; '.join(sorted(machines))}); the kinds together took {sum(kind['seconds'] for kind in kinds)} s, "
        "two at a time."
    )
    failures = [
        f"- {trial['kind']}, {trial['fault']}, `{trial['command']}`: {trial['lost']}"
        for trial in trials
        if trial["lost"]
    ]
    return "\n".join([stated, "", *lines, *(["", "What was lost:", "", *failures] if failures else [])])


def soak_section(results: dict[str, Any]) -> str:
    """The totals, a table of the loads and a table of the kills."""
    shared = ", shared with other work" if results["shared"] else ""
    minutes = results["seconds"] / 60
    lines = [
        f"{results['kills']} kills on {results['date']} in {minutes:.0f} minutes ({results['machine']}{shared}): "
        f"{results['lost']} results lost, {results['half-written']} files half-written, {results['orphans']} processes "
        f"and {results['left behind']} temporary files left behind, {results['other']} other failures.",
        "",
        "| load | minutes | memory, MiB | growth, % | open files | threads | held |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for load in results["loads"]:
        spans = [f"{min(low, other)}-{max(high, last)}" for low, high, other, last in (load["files"], load["threads"])]
        spans = [span if len(set(span.split("-"))) > 1 else span.split("-")[0] for span in spans]
        held = f"no: {load['lost']}" if load["lost"] else "yes"
        lines.append(
            f"| {load['command']} | {load['seconds'] / 60:.1f} | {load['memory']:.0f} | {load['growth']:.2f} | "
            f"{spans[0]} | {spans[1]} | {held} |"
        )
    lines += [
        "",
        "| command | SIGKILL | SIGTERM | SIGINT | finished |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in results["commands"].items():
        lines.append(f"| {name} | {row['SIGKILL']} | {row['SIGTERM']} | {row['SIGINT']} | {row['finished']} |")
    failures = [f"- `{one['command']}`: {_failure(one)}" for one in results["failures"]]
    return "\n".join([*lines, *(["", "What failed:", "", *failures] if failures else [])])


def _failure(one: dict[str, Any]) -> str:
    parts = [one["lost"], one["refused"], *one["half_written"], *one["orphans"], *one["left"]]
    return "; ".join(part for part in parts if part)
