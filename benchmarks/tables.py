"""Write the tables of docs/performance.md and docs/proposals.md from the results of the benchmarks.

    python benchmarks/tables.py

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`. A test compares the pages with the results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from machine import RESULTS

PAGES = [Path(__file__).parents[1] / "docs" / f"{name}.md" for name in ("performance", "proposals")]
MARKS = re.compile(r"(<!-- table: ([\w -]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def results(name: str) -> Any:
    """Read a file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Build a Markdown table whose first column is text, and the others numbers."""
    titles = list(head)
    lines = [f"| {' | '.join(titles)} |", f"|---|{'---:|' * (len(titles) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def seconds(value: float) -> str:
    """Format a duration with three digits, in ms below a second."""
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"


def ranged(values: dict[str, float], form: Callable[[float], str]) -> str:
    """Format a median with the minimum and the maximum."""
    return f"{form(values['median'])} ({form(values['least'])} to {form(values['greatest'])})"


def machine() -> str:
    """Processor, versions and ceilings."""
    found = results("ceilings")
    rows = [("processor", f"{found['machine']['processor']}, {found['machine']['cores']} cores")]
    for cores in [name for name in found if name.endswith(("core", "cores"))]:
        for what, values in found[cores].items():
            name, _, unit = what.rpartition(", ")
            rows.append((f"{name}, {cores}", f"{ranged(values, lambda value: f'{value:.3g}')} {unit}"))
    return table(("machine", "value"), rows)


def search_quality() -> str:
    """Recall and ABO of both engines."""
    found = results("selective_search")["quality"]
    both = [found[engine] for engine in ("opencv", "fast")]
    rows = []
    for name in ("recall@0.5", "ABO"):
        for stage, label in (("before the NMS", ""), ("before the NMS, over 32 pixels", ", objects over 32 pixels")):
            values = [engine[stage][name] for engine in both]
            error = "" if label else f" (standard error {found[f'standard error of the difference in {name}']:.4f})"
            rows.append(
                (f"{name}{label}", *(f"{value:.4f}" for value in values), f"{values[1] - values[0]:+.4f}{error}")
            )
        kept = [engine["kept"][name] for engine in both]
        shown = [f"{each['mean']:.4f} ± {each['deviation over seeds']:.4f}" for each in kept]
        rows.append((f"{name} of the 50 kept, 10 seeds", *shown, f"{kept[1]['mean'] - kept[0]['mean']:+.4f}"))
    counts = [f"{found['boxes'][engine]:,}" for engine in ("opencv", "fast")]
    rows.append(("boxes", *counts, f"{found['boxes in common']:,} in common"))
    return table(("", "OpenCV", "fast", "difference"), rows)


def search_time() -> str:
    """Time of both engines by size, and of each COCO image."""
    found = results("selective_search")
    rows = [
        (
            f"{row['width']} x {row['height']}",
            *(ranged(row[engine], seconds) for engine in ("opencv", "fast")),
            ranged(row["ratio"], lambda value: f"{value:.1f}"),
            seconds(row["floor"]["median"]),
        )
        for row in found["side by side"]
    ]
    mean = found["quality"]["seconds an image"]
    ratio = ranged(found["quality"]["ratio of each image's times"], lambda value: f"{value:.1f}")
    rows.append(
        (f"{found['quality']['images']} COCO images (mean)", seconds(mean["opencv"]), seconds(mean["fast"]), ratio, "")
    )
    return table(("pixels", "OpenCV", "fast", "ratio", "floor"), rows)


def search_steps() -> str:
    """Time of each step of the fast engine."""
    found = results("selective_search")["steps, ms"]
    names = list(next(iter(found.values())))
    rows = [(name, *(f"{found[size][name]:.3g} ms" for size in found)) for name in names]
    rows.append(("all", *(f"{sum(found[size].values()):.3g} ms" for size in found)))
    return table(("step", *(size.replace("x", " x ") for size in found)), rows)


def search_growth() -> str:
    """Time by number of pixels, with the fitted exponents."""
    found = results("selective_search")["growth"]
    rows = [
        (f"{row['pixels']:,}", seconds(row["seconds"]), f"{row['seconds'] / row['pixels'] * 1e9:.0f} ns")
        for row in found["rows"]
    ]
    exponents = found["exponent of pixels"], found["exponent of pixels x log(pixels)"]
    fitted = f"Fitted exponent: {exponents[0]:.2f} of pixels, {exponents[1]:.2f} of pixels x log(pixels)."
    return f"{table(('pixels', 'time', 'per pixel'), rows)}\n\n{fitted}"


def search_memory() -> str:
    """Peak memory of a process by engine and size."""
    found = results("selective_search")["memory, MB"]
    rows = [
        (
            size.replace("x", " x "),
            *(f"{found[size][engine][when]:.0f} MB" for engine in ("opencv", "fast") for when in ("before", "peak")),
        )
        for size in found
    ]
    return table(("pixels", "OpenCV: before", "peak", "fast: before", "peak"), rows)


def proposals_memory() -> str:
    """Peak memory of the whole command, without the search, by number of images."""
    rows = [
        (f"{row['images']:,}", f"{row['boxes']:,}", f"{row['peak_mb']:.0f} MB", f"{row['peak_again_mb']:.0f} MB")
        for row in results("proposals_memory")["runs"]
    ]
    return table(("images", "boxes", "peak memory", "peak memory of a rerun"), rows)


def shards() -> str:
    """One process and two, and the merge of their parts."""
    found = results("sharded_proposals")["scaling"]
    rows = [(name, ranged(values, seconds)) for name, values in found["seconds"].items()]
    rows.append(("two processes over one", ranged(found["two processes over one"], lambda value: f"{value:.2f}")))
    return table((f"{found['images']} images", "time"), rows)


def merge() -> str:
    """The merge by number of images."""
    rows = [
        (
            f"{row['images']:,}",
            f"{row['merge, s']:.1f} s",
            f"{row['merge, us per image']:.0f} us",
            f"{row['floor, us per image']:.0f} us",
            f"{row['peak after listing, MB']:.0f} MB",
            f"{row['peak, MB']:.0f} MB",
        )
        for row in results("sharded_proposals")["merge"]
    ]
    return table(("images", "merge", "per image", "floor", "memory of the listing", "peak memory"), rows)


def planner() -> str:
    """Planned and real cost of each part."""
    rows = []
    forms = {
        "seconds": seconds,
        "memory": lambda value: f"{value / 1e6:.0f} MB",
        "disk": lambda value: f"{value / 1e6:.3g} MB",
    }
    for project, entry in results("planner").items():
        for part, found in entry["parts"].items():
            for name, values in found.items():
                real = [forms[name](values[which]) for which in ("planned", "real")]
                rows.append((f"{project}: {part}, {name}", *real, f"{values['ratio']:.2f}"))
    return table(("", "planned", "real", "ratio"), rows)


def lightly_train() -> str:
    """Speed, memory and start of each program."""
    found, ceiling = results("lightly_train"), results("ceilings")
    rows = []
    for case, entry in found.items():
        if case == "lines":
            continue
        cores = "one core" if entry["settings"]["threads"] == 1 else f"{entry['settings']['threads']} cores"
        limit = ceiling[cores]["float32, GFLOP/s"]["median"] * 1e9
        for program, values in entry["programs"].items():
            rows.append(
                (
                    f"{case}: {program}",
                    ranged(values["images/s of processor time"], lambda value: f"{value:.3g}"),
                    f"{values['images/s']['median']:.3g}",
                    f"{limit / entry['operations per image'][program]:.3g}",
                    f"{values['memory, MB']['median']:.0f} MB",
                    f"{values['first step, s']['median']:.1f} s",
                    str(found["lines"][program]),
                )
            )
    return table(
        (
            "",
            "images per second of processor time",
            "by the clock",
            "ceiling",
            "peak memory",
            "first step after",
            "lines",
        ),
        rows,
    )


START = {
    "ccop-hub --help": "`ccop-hub --help`",
    "ccop-pretrain --help": "`ccop-pretrain --help`",
    "ccop-eval --help": "`ccop-eval --help`",
    "info, safetensors": "`info`, safetensors of a ResNet-50 with pyramid",
    "info, PyTorch file": "`info`, PyTorch file of a ResNet-50",
}
"""Programs whose start is timed."""


def startup() -> str:
    """Processor seconds of the programs, and of loading over timm's."""
    found = results("startup")
    rows = [(label, seconds(found["processor_seconds"]["after"][case]["median"])) for case, label in START.items()]
    for case, ratio in found["ratios"]["after"].items():
        container, _, warm = case.partition(", ")
        where = "repeated in the same process" if warm else "in a new process"
        rows.append((f"`torch.hub.load` / timm, {container}, {where}", f"{ratio:.2f}"))
    return table(("", "processor time or ratio"), rows)


STEPS = {
    "ccop": "CCOP",
    "mocov2": "MoCo v2",
    "authors": "CCOP, the authors' formulation",
    "baseline-ccop": "CCOP before",
    "baseline-mocov2": "MoCo v2 before",
}
"""Variants of a training step."""


STEP_RUNS = {"step": "8 images", "step_batch32": "32 images", "step_batch32_bf16": "32 images, bf16"}
"""Results of `benchmarks/step.py` by what their steps have in common."""


def step_time() -> str:
    """Seconds of a step by run and variant, beside its arithmetic at the machine's ceiling in float32."""
    limit = results("ceilings")["one core"]["float32, GFLOP/s"]["median"] * 1e9
    rows = []
    for file, run in STEP_RUNS.items():
        found = results(file)
        for name, values in found["seconds"].items():
            operations = found["counts"][name]["floating-point operations"]
            is_float32 = found["settings"]["precision"] == "float32"
            floor = seconds(operations / limit / found["settings"]["threads"]) if is_float32 else ""
            rows.append((f"{run}: {STEPS[name]}", ranged(values, seconds), floor))
    return table(("a step", "time", "floor"), rows)


def step_ratios() -> str:
    """Ratios of the times of a step and of its arithmetic, measured by turns."""
    rows = []
    for file, run in STEP_RUNS.items():
        found = results(file)
        for name, values in found["ratios"].items():
            over, under = name.split(" / ")
            operations = [found["counts"][each]["floating-point operations"] for each in (over, under)]
            label = f"{run}: {STEPS[over]} / {STEPS[under]}"
            rows.append((label, ranged(values, lambda value: f"{value:.2f}"), f"{operations[0] / operations[1]:.2f}"))
    return table(("", "time", "arithmetic"), rows)


def step_counts() -> str:
    """Waits, operators, graphs and collectives of a step, before and now."""
    found = results("step_counts")
    one, groups = found["counts"], found["counts with several processes"]
    both = ("baseline-ccop", "ccop")
    rows = [
        (label, *(f"{one[name][key]:,}" for name in both))
        for label, key in (
            ("waits", "waits"),
            ("operators on the device", "operators"),
            ("graphs of torch.compile", "graphs"),
        )
    ]
    for size in groups["ccop"]:
        for label in ("waits", "collectives"):
            rows.append((f"{label}, {size} processes", *(str(groups[name][size][label]) for name in both)))
    return table(("a step of CCOP", "before", "now"), rows)


def data_path() -> str:
    """Milliseconds an image by stage, before and now, with the floor."""
    found = results("data_path")["milliseconds per image"]
    rows = []
    for side, versions in found.items():
        for stage, label in (
            ("decode", "decode"),
            ("draw", "draw the crops"),
            ("boxes", "boxes"),
            ("render", "cut out and resize both views"),
            ("all", "all"),
        ):
            both = (versions["before"][stage], versions["after"][stage])
            floor = ranged(versions["floor"], lambda value: f"{value:.2f}") if stage in ("decode", "all") else ""
            rows.append(
                (f"{side} pixels: {label}", *(ranged(one, lambda value: f"{value:.2f}") for one in both), floor)
            )
        rates = [f"{versions[name]['images a second']:.0f}" for name in ("before", "after")]
        rows.append((f"{side} pixels: images a second", *rates, f"{1000 / versions['floor']['median']:.0f}"))
    return table(("milliseconds an image", "before", "now", "floor"), rows)


def pixels_changed() -> str:
    """Difference of the views' pixels between the versions."""
    names = ("mean of the pixels", "99.9th percentile", "greatest")
    found = results("data_path")["milliseconds per image"]
    rows = [(f"{side} pixels", *(f"{one['difference'][name]:.3g}" for name in names)) for side, one in found.items()]
    return table(("images of", "mean", "99.9th percentile", "greatest"), rows)


def reader_memory() -> str:
    """Memory and start-up of the data loader by number of images."""
    found = results("reader_memory")["images"]
    counts = list(found)
    rows = [(name, *(f"{found[count][name]:.3g}" for count in counts)) for name in found[counts[0]]]
    return table(("images", *(f"{int(count):,}" for count in counts)), rows)


TABLES: dict[str, Callable[[], str]] = {
    "machine": machine,
    "search quality": search_quality,
    "search time": search_time,
    "search steps": search_steps,
    "search growth": search_growth,
    "search memory": search_memory,
    "proposals memory": proposals_memory,
    "shards": shards,
    "merge": merge,
    "planner": planner,
    "lightly-train": lightly_train,
    "start-up": startup,
    "step time": step_time,
    "step ratios": step_ratios,
    "step counts": step_counts,
    "data path": data_path,
    "pixels changed": pixels_changed,
    "reader memory": reader_memory,
}


def filled(page: str) -> str:
    """Return the page with all tables written from the results."""
    return MARKS.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n\n{match[3]}", page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
