"""The plan of the study: arms, measures and scales, read from `plan.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ccop_hub.errors import UserError

FILE = Path(__file__).with_name("plan.yaml")

UNTRAINED, REFERENCE = "untrained", "ccop"
"""The arm that every other starts from, and the arm that the ablations and MoCo v2 are compared with."""

SETS = ("packs", "drawn")
"""The data sets: photographs and synthetic images."""

LATE = 0.25
"""Share of a run at its end over which the logged figures are averaged."""

PLACES = ("images", "proposals", "out")
"""Settings of a run that are folders of this machine, and are not kept with its results."""


@dataclass(frozen=True)
class Measure:
    """One evaluation.

    Attributes:
        name: its name in the results.
        task: function of `ccop_eval`.
        data: what it needs: `boxes` (COCO layout), `classes` (image folders) or `labels` (segmentation).
        paired: whether the task compares two sets of weights on the same images.
        metrics: the metrics to report, the most important one first.
        sets: the data sets that are measured by it, `packs` and `drawn`.
        options: further arguments of the function.
    """

    name: str
    task: str
    data: str
    paired: bool
    metrics: tuple[str, ...]
    sets: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """One scale of the study.

    Attributes:
        scale: its name.
        seeds: seeds of the runs; a seed's arms share the initial weights and the order of the images.
        added: further seeds, of the main arms alone, that were decided on after results of `seeds` were seen.
        shortest_side: shortest side, in pixels, of the shrunk copies of the images that the runs read.
        drawn: arguments of `ccop_pretrain.draw_scenes`, for the set that needs no data.
        arms: arm -> settings of `ccop-pretrain run` in which it differs.
        main: the arms that run first, for all seeds.
        run: settings that all arms share.
        measures: the evaluations; the first metric of the first one is the primary measure.
    """

    scale: str
    seeds: tuple[int, ...]
    added: tuple[int, ...]
    shortest_side: int
    drawn: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    main: tuple[str, ...]
    run: dict[str, Any]
    measures: tuple[Measure, ...]

    @classmethod
    def read(cls, scale: str) -> Plan:
        """Read a scale of `plan.yaml`.

        Raises:
            UserError: there is no such scale.
        """
        content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
        if scale not in content["scales"]:
            raise UserError(f"there is no scale {scale!r}: give one of {', '.join(content['scales'])}")
        chosen = content["scales"][scale]
        return cls(
            scale=scale,
            seeds=tuple(chosen["seeds"]),
            added=tuple(chosen.get("added_seeds", ())),
            shortest_side=chosen["shortest_side"],
            drawn=chosen["drawn"],
            arms={name: content["arms"][name] for name in chosen.get("arms", content["arms"])},
            main=tuple(content["main"]),
            run={**content["run"], **chosen["run"]},
            measures=tuple(
                _measure(name, content["measures"][name], changes) for name, changes in chosen["measures"].items()
            ),
        )

    @property
    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed) of every run, in order; the reference comes before the arms that are compared with it."""
        main = [arm for arm in self.arms if arm in self.main]
        others = [arm for arm in self.arms if arm not in self.main]
        parts = ((self.seeds, main), (self.seeds, others), (self.added, main))
        return [(arm, seed) for seeds, arms in parts for seed in seeds for arm in arms]

    def chosen(self, arms: Sequence[str] | None) -> list[tuple[str, int]]:
        """Return the runs of some arms, or of all.

        Raises:
            UserError: the scale has no such arm.
        """
        if unknown := sorted(set(arms or ()) - set(self.arms)):
            raise UserError(f"the scale {self.scale} has no arm {unknown[0]!r}: give some of {', '.join(self.arms)}")
        return [(arm, seed) for arm, seed in self.runs if arms is None or arm in arms]

    @property
    def primary(self) -> tuple[str, str]:
        """Name of the primary measure and of its metric."""
        return self.measures[0].name, self.measures[0].metrics[0]


def _measure(name: str, entry: dict[str, Any], changes: dict[str, Any]) -> Measure:
    options = {**entry.get("options", {}), **changes}
    return Measure(
        name=name,
        task=entry["task"],
        data=entry["data"],
        paired=options.pop("paired", entry.get("paired", False)),
        metrics=tuple(options.pop("metrics", entry["metrics"])),
        sets=tuple(options.pop("sets", SETS)),
        options=options,
    )
