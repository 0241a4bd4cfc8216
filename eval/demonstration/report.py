"""Printed output of `ccop-eval demo`."""

from __future__ import annotations

from ccop_hub.console import next_step
from ccop_hub.markup import visible

from .run import TRAINED, UNTRAINED, Demonstration


def report(found: Demonstration) -> None:
    """Print both accuracies, chance, what they mean and what to do next."""
    source = "noise" if found.noise else "synthetic images"
    print(f"{found.scored} squares of {source}, half of them on objects and half on the background")
    print(f"classified by their nearest neighbours among {found.labelled} others, by features of {found.backbone}")
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
        next_step("ccop-eval", "demo", note="the same squares, not replaced by noise")
    else:
        next_step("ccop-pretrain", "proposals", "PHOTOS", "--out", "PROPOSALS", note="train on your own photographs")


def _meaning(found: Demonstration) -> str:
    value, low, high = found.difference
    if found.noise:
        return "Noise shows neither objects nor background: no network can do better than chance."
    if low > 0:
        return f"The trained network finds objects better than an untrained one, by {value:.1f} points."
    if high < 0:
        return f"The trained network finds objects worse than an untrained one, by {-value:.1f} points."
    return "No difference shown: the interval of the difference includes 0."
