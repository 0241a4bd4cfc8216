"""The page of the study, generated from its result files."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from ccop_hub.files import write_atomically

from .plan import LATE, REFERENCE, UNTRAINED, Plan
from .proposal_facts import FILE as FACTS
from .proposal_facts import ON_BACKGROUND, ON_OBJECT

HERE = Path(__file__).parent
RESULTS, PAGE, TEXT = HERE / "results", HERE.parents[1] / "docs" / "study.md", HERE / "page.md"
SUMMARY = "<!-- summary -->"
"""Replaced with the table of the main comparisons."""

LEVEL = 0.95

NAMES = {
    "untrained": "untrained",
    "ccop": "CCOP",
    "mocov2": "MoCo v2",
    "no_inter": "without the box loss between images",
    "no_intra": "without the box loss within images",
    "fixed_start": "no curriculum: noise as at its start",
    "fixed_end": "no curriculum: noise as at its end",
}
SETS = {"packs": "photographs", "drawn": "synthetic images"}

ON_THESE_IMAGES = " on these images"
"""Said of a difference whose interval over the seeds excludes 0, but no interval over the images does."""

DIAGNOSIS = {
    "loss_image": "image loss",
    "loss_box": "box loss between images",
    "loss_intra": "box loss within images",
    "image_batch_accuracy": "image accuracy within the batch",
    "box_batch_accuracy": "box accuracy within the batch",
    "image_embedding_std": "standard deviation of image embeddings",
    "box_embedding_std": "standard deviation of box embeddings",
    "image_positive_similarity": "similarity to the positive, images",
    "image_batch_similarity": "similarity to the batch, images",
    "box_positive_similarity": "similarity to the hardest positive, boxes",
    "box_batch_similarity": "similarity to the batch, boxes",
    "boxes_per_image": "boxes in both views, per image",
    "valid_jitters": "share of valid jitters",
}
"""Column of metrics.csv -> its name on the page."""


@dataclass(frozen=True)
class Difference:
    """Differences of a metric between two arms, one per seed.

    Attributes:
        values: the differences.
        limits: 95 % interval over images for each of them; None if the evaluation is not paired.
    """

    values: list[float]
    limits: list[tuple[float, float] | None]

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean over seeds, from the t distribution; None with fewer than two seeds."""
        count = len(self.values)
        if count < 2:
            return None
        half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * stdev(self.values) / math.sqrt(count)
        return fmean(self.values) - half, fmean(self.values) + half

    @property
    def verdict(self) -> str:
        """What the intervals show: `better`, `worse`, one of these `on these images`, or `no difference shown`."""
        if self.interval is None:
            return "one seed: no conclusion"
        low, high = self.interval
        if low <= 0 <= high:
            return "no difference shown"
        doubtful = any(self.limits) and self.shown_over_images == (0, 0)
        return ("better" if low > 0 else "worse") + (ON_THESE_IMAGES if doubtful else "")

    @property
    def shown_over_images(self) -> tuple[int, int]:
        """Numbers of seeds whose interval over images is above 0, and below 0."""
        known = [limit for limit in self.limits if limit is not None]
        return sum(low > 0 for low, _ in known), sum(high < 0 for _, high in known)

    @property
    def over_seeds(self) -> str:
        """Mean and interval over seeds."""
        if self.interval is None:
            return f"{fmean(self.values):+.2f}"
        return f"{fmean(self.values):+.2f} [{self.interval[0]:+.2f}, {self.interval[1]:+.2f}]"

    @property
    def over_images(self) -> str:
        """Each seed's difference with its interval over images."""
        return "; ".join(
            f"{value:+.1f}" + (f" [{limit[0]:+.1f}, {limit[1]:+.1f}]" if limit else "")
            for value, limit in zip(self.values, self.limits, strict=True)
        )


@dataclass(frozen=True)
class Campaign:
    """The results of one scale on one data set.

    Attributes:
        plan: the plan.
        data: `packs` or `drawn`.
        results: (arm, seed) -> contents of the result file.
        proposals: figures of the proposals; see `proposal_facts`.
    """

    plan: Plan
    data: str
    results: dict[tuple[str, int], dict[str, Any]]
    proposals: dict[str, float]

    @classmethod
    def read(cls, folder: Path) -> Campaign:
        """Read a folder of result files named SCALE-DATA."""
        scale, _, data = folder.name.partition("-")
        files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*-seed*.json"))]
        facts = folder / FACTS
        proposals = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {}
        return cls(Plan.read(scale), data, {(entry["arm"], entry["seed"]): entry for entry in files}, proposals)

    @property
    def arms(self) -> list[str]:
        """Arms with a result, in the order of the plan."""
        return [arm for arm in self.plan.arms if any(arm == found for found, _ in self.results)]

    def seeds(self, arm: str, measure: str | None = None) -> list[int]:
        """Seeds for which an arm has a result, of one measure if it is given."""
        entries = {seed: entry for (found, seed), entry in self.results.items() if found == arm}
        return sorted(seed for seed, entry in entries.items() if measure is None or measure in entry["measures"])

    def values(self, arm: str, measure: str, metric: str) -> list[float]:
        """A metric of an arm, by seed."""
        return [self.results[arm, seed]["measures"][measure]["metrics"][metric] for seed in self.seeds(arm, measure)]

    def difference(
        self, arm: str, other: str, measure: str, metric: str, only: Sequence[int] | None = None
    ) -> Difference:
        """Differences between two arms for the seeds that both have, or for `only` some of these."""
        values: list[float] = []
        limits: list[tuple[float, float] | None] = []
        shared = set(self.seeds(arm, measure)) & set(self.seeds(other, measure))
        for seed in sorted(shared if only is None else shared & set(only)):
            entry = self.results[arm, seed]["measures"][measure]
            pair = entry.get(f"against {other}", {}).get(metric)
            if pair is not None:
                values.append(pair["difference"])
                limits.append((pair["low"], pair["high"]))
            else:
                first = self.results[other, seed]["measures"][measure]["metrics"][metric]
                values.append(entry["metrics"][metric] - first)
                limits.append(None)
        return Difference(values, limits)


def write_page(results: Path = RESULTS, page: Path = PAGE) -> None:
    """Generate the page from all result files."""
    folders = sorted(folder for folder in results.glob("*-*") if not folder.name.startswith("smoke"))
    campaigns = [Campaign.read(folder) for folder in folders]
    text = TEXT.read_text(encoding="utf-8").replace(SUMMARY, _summary(campaigns))
    sections = [section for campaign in campaigns if campaign.results for section in _campaign(campaign)]
    write_atomically(page, text.rstrip("\n") + "\n\n" + "\n".join(sections))


def _summary(campaigns: Iterable[Campaign]) -> str:
    """Tabulate the main comparisons of all campaigns, in every measure that several seeds have."""
    pairs = ((REFERENCE, UNTRAINED), ("mocov2", REFERENCE))
    rows = [
        ["images, scale", "measure", *(cell for arm, other in pairs for cell in (f"{NAMES[arm]} - {NAMES[other]}", ""))]
    ]
    for campaign in campaigns:
        for measure in campaign.plan.measures:
            for metric in measure.metrics:
                found = [campaign.difference(arm, other, measure.name, metric) for arm, other in pairs]
                if not any(difference.interval for difference in found):
                    continue
                cells = [(item.over_seeds, item.verdict) if item.values else ("", "") for item in found]
                name = f"{SETS[campaign.data]}, `{campaign.plan.scale}`"
                rows.append([name, f"{measure.name} `{metric}`", *(cell for pair in cells for cell in pair)])
    return table(rows).rstrip("\n")


def _campaign(campaign: Campaign) -> Iterable[str]:
    yield f"## {SETS[campaign.data].capitalize()}, scale `{campaign.plan.scale}`\n"
    yield _setup(campaign)
    yield "### Primary measure\n"
    yield _primary(campaign)
    yield "### What is shown, and what is not\n"
    yield _statements(campaign)
    yield "### All measures\n"
    yield _all_measures(campaign)
    yield "### Diagnosis\n"
    yield _diagnosis(campaign)


def _epochs(settings: dict[str, Any], training: dict[str, Any]) -> float:
    """Return the passes over the images at the end of a run, from their mean over its last logged steps."""
    steps, every = training["steps"], settings["log_every"]
    logged = max(1, round(LATE * (steps // every)))
    mean_step = steps // every * every - every * (logged - 1) / 2
    return float(training["late"]["epoch"]) * steps / mean_step


def _setup(campaign: Campaign) -> str:
    plan = campaign.plan
    trained = [entry for (arm, _), entry in campaign.results.items() if arm != UNTRAINED]
    done, planned = len(campaign.results), len(plan.runs)
    lines = [f"{done} of {planned} runs are finished." + ("" if done == planned else " The others are missing below.")]
    if any(seed in plan.added for _, seed in campaign.results):
        lines.append(f"The seeds {_listed(plan.added)} were added after the results of the others had been seen.")
    if trained:
        settings, training = trained[0]["settings"], trained[0]["training"]
        images = training["steps"] * settings["batch_size"]
        lines.append(
            f"Each run trains a `{settings['backbone']}` at {settings['image_size']} px for {training['steps']} steps "
            f"of {settings['batch_size']} images ({_epochs(settings, training):.0f} epochs, {images:,} images seen)."
        )
        times = {arm: fmean(_times(campaign, arm)) for arm in campaign.arms if arm != UNTRAINED}
        shown = ", ".join(f"{NAMES[arm]} {seconds:.0f} s" for arm, seconds in times.items())
        machine = trained[0]["environment"]
        where = ", ".join(machine["gpus"]) or f"one of {machine['cores']} cores"
        lines.append(f"Processor time of a training run on {where}: {shown}.")
    return "\n".join(lines) + "\n"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:-1])) + f" and {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])


def _times(campaign: Campaign, arm: str) -> list[float]:
    return [campaign.results[arm, seed]["training"]["processor_seconds"] for seed in campaign.seeds(arm)]


def _primary(campaign: Campaign) -> str:
    measure, metric = campaign.plan.primary
    entry = next(iter(campaign.results.values()))["measures"][measure]
    caption = f"`{metric}` of `{entry['protocol']}` on {entry['images']} images, in per cent.\n\n"
    seeds = sorted({seed for _, seed in campaign.results} | set(campaign.plan.seeds))
    rows = [["arm", *(f"seed {seed}" for seed in seeds), "mean", "minus untrained, over seeds", "by seed, over images"]]
    for arm in campaign.arms:
        by_seed = dict(zip(campaign.seeds(arm), campaign.values(arm, measure, metric), strict=True))
        row = [NAMES[arm], *(f"{by_seed[seed]:.2f}" if seed in by_seed else "" for seed in seeds)]
        row.append(f"{fmean(by_seed.values()):.2f}")
        found = campaign.difference(arm, UNTRAINED, measure, metric)
        row += ["", ""] if arm == UNTRAINED or not found.values else [found.over_seeds, found.over_images]
        rows.append(row)
    return caption + table(rows)


def _statements(campaign: Campaign) -> str:
    measure, metric = campaign.plan.primary
    pairs = [(arm, UNTRAINED) for arm in campaign.arms if arm != UNTRAINED]
    pairs += [(arm, REFERENCE) for arm in campaign.arms if arm not in (UNTRAINED, REFERENCE)]
    lines = []
    for arm, other in pairs:
        found = campaign.difference(arm, other, measure, metric)
        if not found.values:
            continue
        above, below = found.shown_over_images
        lines.append(
            f"- {NAMES[arm]} - {NAMES[other]}: {found.over_seeds} points: **{found.verdict}** "
            f"(seeds: {len(found.values)}; interval over images above 0: {above}, below 0: {below})."
            + _added_alone(campaign, arm, other)
        )
    return "\n".join(lines) + "\n"


def _added_alone(campaign: Campaign, arm: str, other: str) -> str:
    """Report the seeds that were added later by themselves: the decision to add them cannot bias these."""
    added = campaign.plan.added
    found = campaign.difference(arm, other, *campaign.plan.primary, added)
    return f" Seeds {_listed(added)} alone: {found.over_seeds}: {found.verdict}." if len(found.values) > 1 else ""


def _all_measures(campaign: Campaign) -> str:
    rows = [["measure", "arm", "seeds", "mean", "minus untrained", "", "minus CCOP", ""]]
    for measure in campaign.plan.measures:
        for metric in measure.metrics:
            for arm in campaign.arms:
                values = campaign.values(arm, measure.name, metric)
                if not values:
                    continue
                row = [f"{measure.name} `{metric}`", NAMES[arm], str(len(values)), f"{fmean(values):.2f}"]
                for other, left_out in ((UNTRAINED, (UNTRAINED,)), (REFERENCE, (UNTRAINED, REFERENCE))):
                    found = campaign.difference(arm, other, measure.name, metric)
                    row += ["", ""] if arm in left_out or not found.values else [found.over_seeds, found.verdict]
                rows.append(row)
    return table(rows)


def _diagnosis(campaign: Campaign) -> str:
    arms = [arm for arm in campaign.arms if arm != UNTRAINED]
    rows = [["figure", *(NAMES[arm] for arm in arms)]]
    for column, name in DIAGNOSIS.items():
        cells = [_change(campaign, arm, column) for arm in arms]
        if any(cells):
            rows.append([name, *cells])
    warnings = sorted(
        {warning for entry in campaign.results.values() for warning in entry["training"].get("warnings", [])}
    )
    found = "\n".join(f"- {warning}" for warning in warnings)
    return (
        _proposals(campaign.proposals)
        + "The first logged step, and the mean over the last quarter of the run; means over seeds.\n\n"
        + table(rows)
        + (f"\nWarnings of the runs:\n\n{found}\n" if found else "\nNo run gave a warning.\n")
    )


def _proposals(facts: dict[str, float]) -> str:
    if not facts:
        return ""
    return (
        f"The {facts['annotated images']} annotated training images have {facts['proposals per image']:.0f} proposals "
        f"each. {facts['on an object']:.0%} of these have an IoU of {ON_OBJECT} or more with an annotated object; "
        f"{facts['on background']:.0%} have less than {ON_BACKGROUND} with all of them. {facts['objects found']:.0%} "
        f"of the objects have a proposal with an IoU of {ON_OBJECT} or more.\n\n"
    )


def _change(campaign: Campaign, arm: str, column: str) -> str:
    logs = [campaign.results[arm, seed]["training"] for seed in campaign.seeds(arm)]
    first = [log["first"][column] for log in logs if log["first"].get(column) is not None]
    late = [log["late"][column] for log in logs if column in log["late"]]
    return f"{fmean(first):.3g} -> {fmean(late):.3g}" if first and late else ""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]) + "\n"


def main() -> None:
    """Write docs/study.md."""
    parser = argparse.ArgumentParser(prog="python -m studies.scenes.report", description=main.__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    given = parser.parse_args()
    write_page(given.results, given.page)


if __name__ == "__main__":
    main()
