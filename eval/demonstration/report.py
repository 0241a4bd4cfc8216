"""Printed output of `ccop-eval demo`."""

from __future__ import annotations

from ccop_hub.console import next_step
from ccop_hub.markup import visible
from ccop_hub.synthetic.shapes import SHAPES

from .run import TRAINED, UNTRAINED, Demonstration


def report(found: Demonstration) -> None:
    """Print both accuracies, chance, what they mean and what to do next."""
    what = "squares of noise" if found.noise else "objects on synthetic images"
    print(f"{found.scored} {what}, of {len(SHAPES)} classes: {', '.join(SHAPES)}")
    print(f"classified by nearest neighbours among {found.labelled} others, by features of {found.backbone}")
    rows = {UNTRAINED: "untrained", TRAINED: visible(found.weights)}
    width = max(len(label) for label in (*rows.values(), "difference"))
    print(f"\n{'accuracy':<{width}}           95 % interval")
    for name, label in rows.items():
        low, high = found.intervals[name]
        print(f"{label:<{width}}  {found.accuracy[name]:5.1f} %  [{low:.1f}, {high:.1f}]")
    value, low, high = found.difference
    print(f"{'difference':<{width}}  {value:+5.1f}    [{low:+.1f}, {high:+.1f}]")
    print(f"{'chance':<{width}}  {found.chance:5.1f} %\n")
    print(_meaning(found))
    if found.noise:
        next_step("ccop-eval", "demo", note="the same objects, not replaced by noise")
    else:
        next_step("ccop-pretrain", "proposals", "PHOTOS", "--out", "PROPOSALS", note="train on your own photographs")


def _meaning(found: Demonstration) -> str:
    value, low, high = found.difference
    if found.noise:
        return "Noise shows nothing of the objects: neither network can do better than chance."
    if low > 0:
        return f"The trained network classifies {value:.1f} % more of the objects correctly than an untrained one."
    if high < 0:
        return f"The trained network classifies {-value:.1f} % fewer of the objects correctly than an untrained one."
    return "No difference shown: the interval of the difference includes 0."
