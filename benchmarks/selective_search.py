"""Compare time, memory and quality of the two selective search engines.

    python benchmarks/selective_search.py --out RESULTS.json --plot PLOT.png
    python benchmarks/selective_search.py --out RESULTS.json --coco FOLDER

The first command measures time and memory, or only the given `--parts`; another run adds to the same file. Time is the
CPU time of one thread. The engines alternate, so that a busy machine slows both equally. The photographs are from
scikit-image, resized.

The second command runs both engines on every image of a COCO-format data set (`annotations/instances_SPLIT2017.json`,
images in `SPLIT2017/`), and compares their boxes with all ground-truth objects, excluding crowds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from ccop_pretrain.common.parallel import OrderedMap
from ccop_pretrain.proposals.check import iou
from ccop_pretrain.proposals.selective_search import (
    KEPT_BOXES,
    image_generator,
    keep_objects,
    non_maximum_suppression,
    search,
)
from machine import cpu_seconds, facts, spread, update
from PIL import Image

ENGINES = ("opencv", "fast")
SIZES = ((480, 360), (640, 480), (2048, 1024))
"""Image sizes (width, height) for comparing the engines."""
GROWTH = ((128, 96), (256, 192), (512, 384), (1024, 768), (2048, 1536))
"""Image sizes for fitting how the fast engine's time scales."""
SEEDS = 10
LARGE = 32  # pixels; objects with a larger side (square root of the box area) are also reported separately

Pixels = npt.NDArray[np.uint8]


def photographs(size: tuple[int, int]) -> dict[str, Pixels]:
    """Load scikit-image's two photographs, resized to (width, height)."""
    from skimage import data

    images = {name: Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee")}
    return {name: np.array(image.resize(size, Image.Resampling.LANCZOS)) for name, image in images.items()}


def side_by_side(rounds: int) -> Iterator[dict[str, Any]]:
    """Time both engines alternately, on each photograph at each size."""
    for size in SIZES:
        times: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        floors: list[float] = []
        for pixels in photographs(size).values():
            for _ in range(rounds):
                for engine in ENGINES:
                    times[engine].append(cpu_seconds(search, pixels, "fast", engine)[0])
                floors.append(cpu_seconds(floor, pixels)[0])
        ratios = [slow / fast for slow, fast in zip(*times.values(), strict=True)]
        row = {engine: spread(values) for engine, values in times.items()}
        yield {"width": size[0], "height": size[1], **row, "ratio": spread(ratios), "floor": spread(floors)}


def floor(pixels: Pixels) -> None:
    """Run the steps that any such search needs with the fastest library functions: convert, smooth, derive, sort."""
    for space in (cv2.COLOR_RGB2HSV, cv2.COLOR_RGB2LAB):
        image = cv2.cvtColor(pixels, space)
        smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.8)
        for along_x in (0, 1):
            cv2.Scharr(image, cv2.CV_16S, along_x, 1 - along_x)
            cv2.Scharr(image, cv2.CV_16S, along_x, 1 - along_x)  # once more, for the diagonals
        right, down = smooth[:, 1:] - smooth[:, :-1], smooth[1:] - smooth[:-1]
        np.sort(np.concatenate(((right * right).sum(axis=2).ravel(), (down * down).sum(axis=2).ravel())))


def steps(size: tuple[int, int], rounds: int) -> dict[str, float]:
    """Time each step of the fast engine in milliseconds, as the minimum over several rounds."""
    from ccop_pretrain.proposals.fast_search import FAST_SCALES, colour_spaces, grouping, regions, segmentation, texture

    pixels = photographs(size)["coffee"]
    best: dict[str, float] = {}
    for _ in range(rounds):
        taken = dict.fromkeys(("colour spaces", "segmentation", "gradients", "histograms, neighbours", "grouping"), 0.0)
        taken["colour spaces"], images = cpu_seconds(list, colour_spaces.colour_images(pixels, False))
        for image in images:
            spent, (labels, numbers) = cpu_seconds(segmentation.segment, image, FAST_SCALES)
            taken["segmentation"] += spent
            spent, bins = cpu_seconds(texture.texture_bins, image)
            taken["gradients"] += spent
            spent, described = cpu_seconds(regions.describe, labels, numbers, image, bins)
            taken["histograms, neighbours"] += spent
            for start in described:
                for measures in grouping.FAST:
                    taken["grouping"] += cpu_seconds(grouping.grouped, start, size[0] * size[1], measures)[0]
        best = {name: min(value * 1000, best.get(name, np.inf)) for name, value in taken.items()}
    return best


def growth(rounds: int) -> dict[str, Any]:
    """Time the fast engine by number of pixels, and fit exponents of pixels and of pixels x log(pixels)."""
    rows = []
    for size in GROWTH:
        pixels = photographs(size)["coffee"]
        rows.append(
            {"pixels": size[0] * size[1], "seconds": min(cpu_seconds(search, pixels)[0] for _ in range(rounds))}
        )
    count, taken = (np.array([row[name] for row in rows], float) for name in ("pixels", "seconds"))
    exponents = [float(np.polyfit(np.log(x), np.log(taken), 1)[0]) for x in (count, count * np.log(count))]
    return {"rows": rows, "exponent of pixels": exponents[0], "exponent of pixels x log(pixels)": exponents[1]}


def prepare() -> None:
    """Prepare this process for measuring: one thread, everything compiled."""
    cv2.setNumThreads(1)
    search(np.zeros((8, 8, 3), np.uint8))


SEARCH_ALONE = """
import json, sys
import numpy as np
from machine import peak_mb
from ccop_pretrain.proposals.selective_search import search
pixels = np.load(sys.argv[2])
search(pixels[:8, :8], engine=sys.argv[1])
before = peak_mb()
search(pixels, engine=sys.argv[1])
print(json.dumps({"before": before, "peak": peak_mb()}))
"""
"""Imports nothing but what a worker process of `ccop-pretrain proposals` does."""


def memory_of(engine: str, size: tuple[int, int]) -> dict[str, float]:
    """Measure the peak memory of a separate process in MB (2**20 bytes), before and after the search."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, photographs(size)["coffee"])
        command = [sys.executable, "-c", SEARCH_ALONE, engine, file.name]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def known_objects(folder: Path) -> Iterator[tuple[Path, npt.NDArray[np.float64]]]:
    """Yield the images with objects of a COCO-format data set, with their boxes (N, 4), xyxy."""
    for split in ("train", "val"):
        facts = json.loads((folder / "annotations" / f"instances_{split}2017.json").read_text())
        boxes: dict[int, list[list[float]]] = {}
        for entry in facts["annotations"]:
            if not entry.get("iscrowd"):
                x, y, width, height = entry["bbox"]
                boxes.setdefault(entry["image_id"], []).append([x, y, x + width, y + height])
        for image in facts["images"]:
            if image["id"] in boxes:
                yield folder / f"{split}2017" / image["file_name"], np.array(boxes[image["id"]])


def image_quality(item: tuple[Path, npt.NDArray[np.float64]]) -> dict[str, Any]:
    """Compute both engines' best overlaps with each object in an image, before NMS and among the kept boxes."""
    path, objects = item
    pixels = np.asarray(Image.open(path).convert("RGB"))
    facts: dict[str, Any] = {"sides": np.sqrt((objects[:, 2:] - objects[:, :2]).prod(axis=1))}
    sets = []
    for engine in ENGINES:
        spent, raw = cpu_seconds(search, pixels, "fast", engine)
        sets.append(set(map(tuple, raw.tolist())))
        boxes = keep_objects(raw)
        overlaps = iou(objects, np.hstack((boxes[:, :2], boxes[:, :2] + boxes[:, 2:])))
        draws = [image_generator(seed, path.name).random(len(boxes)) for seed in range(SEEDS)]
        chosen = [non_maximum_suppression(boxes, scores)[:KEPT_BOXES] for scores in draws]
        facts[engine] = {
            "seconds": spent,
            "boxes": len(raw),
            "before": overlaps.max(axis=1, initial=0),
            "kept": np.stack([overlaps[:, some].max(axis=1, initial=0) for some in chosen]),
        }
    return facts | {"common": len(sets[0] & sets[1])}


def quality(folder: Path, workers: int) -> dict[str, Any]:
    """Compare the engines' recall and average best overlap, before and after NMS, their time and their common boxes."""
    with OrderedMap(image_quality, known_objects(folder), workers, prepare) as outcomes:
        images = list(outcomes)
    times = {engine: [image[engine]["seconds"] for image in images] for engine in ENGINES}
    before = {engine: [image[engine]["before"] for image in images] for engine in ENGINES}
    kept = {engine: [image[engine]["kept"] for image in images] for engine in ENGINES}
    found = {engine: sum(image[engine]["boxes"] for image in images) for engine in ENGINES}
    common, sides = sum(image["common"] for image in images), [image["sides"] for image in images]
    large = np.concatenate(sides) > LARGE
    ratios = [slow / fast for slow, fast in zip(*times.values(), strict=True)]
    report: dict[str, Any] = {
        "images": len(sides),
        "objects": len(large),
        f"objects over {LARGE} pixels": int(large.sum()),
        "boxes": found,
        "boxes in common": common,
        "seconds an image": {engine: float(np.mean(values)) for engine, values in times.items()},
        "ratio of each image's times": spread(ratios),
    }
    for engine in ENGINES:
        best, best_kept = np.concatenate(before[engine]), np.concatenate(kept[engine], axis=1)
        report[engine] = {
            "before the NMS": scores_of(best),
            f"before the NMS, over {LARGE} pixels": scores_of(best[large]),
            "kept": {
                name: {"mean": float(np.mean(values)), "deviation over seeds": float(np.std(values, ddof=1))}
                for name, values in {
                    name: [scores_of(row)[name] for row in best_kept] for name in ("recall@0.5", "ABO")
                }.items()
            },
        }
    differences = np.concatenate(before["fast"]) - np.concatenate(before["opencv"])
    report["standard error of the difference in ABO"] = float(differences.std() / np.sqrt(len(differences)))
    hits = [np.concatenate(before[engine]) >= 0.5 for engine in ENGINES]
    changed = (hits[1].astype(int) - hits[0]).std()
    report["standard error of the difference in recall@0.5"] = float(changed / np.sqrt(len(large)))
    return report


def scores_of(best: npt.NDArray[np.float64]) -> dict[str, float]:
    """Compute recall and average best overlap from the best overlap with each object."""
    return {"recall@0.5": float((best >= 0.5).mean()), "ABO": float(best.mean())}


def draw(report: dict[str, Any], path: Path) -> None:
    """Plot time against the number of pixels, with logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    rows = report["growth"]["rows"]
    pixels = np.array([row["pixels"] for row in rows])
    axes.loglog(pixels, [row["seconds"] for row in rows], "o-", label="fast")
    tables = report["side by side"]
    counts = [row["width"] * row["height"] for row in tables]
    axes.loglog(counts, [row["opencv"]["median"] for row in tables], "s-", label="opencv")
    axes.loglog(counts, [row["floor"]["median"] for row in tables], "^:", label="library floor (see text)")
    guide = pixels * np.log(pixels)
    axes.loglog(pixels, guide * rows[0]["seconds"] / guide[0], "k--", linewidth=0.8, label="pixels x log(pixels)")
    axes.set(xlabel="pixels", ylabel="processor time of one search, s")
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Parse the command line, run the measurements and write the results."""
    measures: dict[str, Callable[[int], Any]] = {
        "side by side": lambda rounds: list(side_by_side(rounds)),
        "steps, ms": lambda rounds: {f"{size[0]}x{size[1]}": steps(size, rounds) for size in SIZES},
        "growth": growth,
        "memory, MB": lambda _: {
            f"{size[0]}x{size[1]}": {engine: memory_of(engine, size) for engine in ENGINES} for size in SIZES
        },
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco", type=Path, help="folder of a COCO-format data set: measure the quality on it")
    parser.add_argument("--workers", type=int, default=1, help="processes that measure the quality")
    parser.add_argument("--parts", nargs="+", default=list(measures), choices=list(measures), metavar="PART")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each engine on each photograph and size")
    parser.add_argument("--out", type=Path, help="JSON file for the results, updated if it exists")
    parser.add_argument("--plot", type=Path, help="file for the plot (PNG), drawn from all parts of the results")
    arguments = parser.parse_args()
    prepare()
    machine = facts("numba", "numpy", "opencv-contrib-python")
    if arguments.coco:
        update(arguments.out, {"quality": quality(arguments.coco, arguments.workers) | {"machine": machine}})
        return
    for part in arguments.parts:
        update(arguments.out, {part: measures[part](arguments.rounds), "machine": machine})
    if arguments.plot:
        draw(json.loads(arguments.out.read_text(encoding="utf-8")), arguments.plot)


if __name__ == "__main__":
    main()
