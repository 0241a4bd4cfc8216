"""Write the network of a finished run as the hub ships it: `python -m studies.scenes.checkpoint RUN RESULTS OUT`.

Tensors are rounded to float16. The pyramid is left out: with it, the file would exceed 15 MB. The card is generated
from the result files, so that its numbers are those of the study.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from string import Template
from typing import Any

import yaml

from ccop_hub.errors import UserError
from ccop_hub.files import write_atomically
from ccop_hub.formats.checkpoint import read_checkpoint, save_checkpoint

from .plan import PLACES, REFERENCE, UNTRAINED
from .report import Campaign, table

CARD = Path(__file__).with_name("card.md")

RECOMPUTED = ("digest", "file", "fingerprint")
"""Facts that describe the file, not the network."""

MEASURES = {
    ("regions", "linear/mean_class"): "region probe, linear, class mean",
    ("regions", "knn/mean_class"): "region probe, kNN, class mean",
    ("knn", "k20/top1"): "kNN on crops, k = 20, top 1",
    ("knn", "k100/top1"): "kNN on crops, k = 100, top 1",
}
"""Measure and metric -> its name on the card."""


def write(run: Path, results: Path, out: Path) -> Path:
    """Write the backbone, the settings and the card of a run.

    Args:
        run: folder of a finished run of CCOP on synthetic images, named ARM-seedN.
        results: folder of the study's result files, named SCALE-drawn.
        out: folder to write; its name is the network's.

    Returns:
        The safetensors file.

    Raises:
        UserError: the study has no result for this run, or the network is not better than its start in every measure.
    """
    campaign = Campaign.read(results)
    seed = next((seed for seed in campaign.seeds(REFERENCE) if run.name == f"{REFERENCE}-seed{seed}"), None)
    if seed is None:
        raise UserError(f"{results} has no result of {run.name}: give a run of {REFERENCE} that was evaluated")
    for measure, metric in MEASURES:
        pair = campaign.results[REFERENCE, seed]["measures"][measure][f"against {UNTRAINED}"][metric]
        if pair["low"] <= 0:
            raise UserError(f"{run.name} is not shown to be better than its start in {measure} {metric}")
    weights = read_checkpoint(run)
    tensors = {
        name: value.half() if value.is_floating_point() else value
        for name, value in weights.tensors.items()
        if name.startswith("backbone.")
    }
    facts = {name: value for name, value in weights.facts.items() if name not in RECOMPUTED}
    facts["dataset"] = {**facts["dataset"], "name": f"{facts['dataset']['images']:,} synthetic scenes"}
    file = save_checkpoint(out, tensors, {**facts, "parts": ["backbone"], "arch": weights.arch})
    settings = yaml.safe_load((run / "settings.yaml").read_text(encoding="utf-8"))
    kept = {name: value for name, value in settings.items() if name not in PLACES}
    write_atomically(out / "settings.yaml", yaml.safe_dump(kept, sort_keys=False))
    write_atomically(out / "README.md", card(campaign, seed, facts, file))
    return file


def card(campaign: Campaign, seed: int, facts: dict[str, Any], file: Path) -> str:
    """Fill in the card of the network in `file`, with the `facts` of its run."""
    result = campaign.results[REFERENCE, seed]
    return Template(CARD.read_text(encoding="utf-8")).substitute(
        name=file.parent.name,
        images=f"{facts['dataset']['images']:,}",
        drawn=campaign.plan.drawn["images"],
        size=campaign.plan.drawn["size"],
        steps=f"{result['training']['steps']:,}",
        batch=result["settings"]["batch_size"],
        epochs=f"{facts['epochs']:.0f}",
        side=result["settings"]["image_size"],
        megabytes=f"{file.stat().st_size / 1e6:.1f}",
        seed=seed,
        records=f"{campaign.plan.scale}-{campaign.data}",
        evaluated=f"{result['measures']['regions']['images']:,}",
        seeds=len(campaign.seeds(REFERENCE)),
        table=_measured(campaign, seed),
    )


def _measured(campaign: Campaign, seed: int) -> str:
    rows = [["measure", "untrained", "trained", "difference", "over the seeds"]]
    for (measure, metric), name in MEASURES.items():
        start, trained = (
            campaign.results[arm, seed]["measures"][measure]["metrics"][metric] for arm in (UNTRAINED, REFERENCE)
        )
        pair = campaign.results[REFERENCE, seed]["measures"][measure][f"against {UNTRAINED}"][metric]
        difference = f"{pair['difference']:+.2f} [{pair['low']:+.2f}, {pair['high']:+.2f}]"
        over_seeds = campaign.difference(REFERENCE, UNTRAINED, measure, metric).over_seeds
        rows.append([name, f"{start:.2f}", f"{trained:.2f}", difference, over_seeds])
    return table(rows)


def main() -> None:
    """Write one run's network."""
    parser = argparse.ArgumentParser(prog="python -m studies.scenes.checkpoint", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run, OUT/runs/ccop-seedN of the study")
    parser.add_argument("results", type=Path, help="folder of the study's result files, such as RESULTS/small-drawn")
    parser.add_argument("out", type=Path, help="folder to write, with the name of the network")
    given = parser.parse_args()
    print(write(given.run, given.results, given.out))


if __name__ == "__main__":
    main()
