"""Measure the time from an image file to two views with their boxes.

    python benchmarks/data_path.py --out RESULTS.json [--before PYTHON] [--images FOLDER] [--rounds 15]

One process and one thread; processor time per image. `--before` is the Python interpreter of an environment with an
earlier version of this project: the versions alternate, so that a busy machine slows both equally, and their views are
compared. The images are those of FOLDER, or synthetic ones drawn by `ccop-pretrain scenes`, resized to each of the
sides below and stored as JPEG; each has 15 to 50 random boxes. Views have 224 x 224 pixels.

The floor is the time of Pillow's decoder alone.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts
from PIL import Image

EXPECTATION = (
    "250 images a second at 480 pixels, from 128. Drawing the crops one number at a time takes a quarter of the time "
    "and can be done in bulk; torch's antialiased uint8 resize is vectorised and Pillow's is not, so rendering should "
    "take half; the array replaces one copy of the image. Decoding is the floor at 480 pixels, where no reduction "
    "keeps enough pixels; at 1920 pixels most crops allow half the size, and decoding dominates."
)
SIDES = (480, 1920)
"""Longest sides of the images in pixels."""
IMAGES = 100
QUALITY = 90
STAGES = {"read": "decode", "read_pixels": "decode", "draw_views": "draw", "boxes": "boxes", "two_views": "boxes"}


class Boxes:
    """Random proposals, in place of a `ProposalStore`."""

    def __init__(self, sizes: dict[str, tuple[int, int]]) -> None:
        self.skipped: dict[str, str] = {}
        self._boxes = {image: self._drawn(image, size) for image, size in sizes.items()}

    def boxes(self, image: str) -> Any:
        """Return 15 to 50 boxes, (N, 4) float32 xyxy, determined by the image's name."""
        return self._boxes[image].copy()

    def _drawn(self, image: str, size: tuple[int, int]) -> Any:
        draws = np.random.default_rng(list(image.encode()))
        corners = draws.uniform(0, 1, (draws.integers(15, 51), 2, 2)) * size
        return np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)


class StageClock:
    """Attributes processor time to the innermost of nested stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time counted under `stage`."""

        def timed(*arguments: Any, **named: Any) -> Any:
            self._switch()
            self._open.append(stage)
            try:
                return function(*arguments, **named)
            finally:
                self._switch()
                self._open.pop()

        return timed

    def _switch(self) -> None:
        now = time.process_time()
        if self._open:
            stage = self._open[-1]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now


def serve(folder: Path) -> None:
    """Answer requests on standard input, with the version of this interpreter.

    `time` prints the seconds per image, in all and by stage; `views PATH` stores the views and boxes of all images.
    """
    import torch
    from ccop_pretrain.settings import ReadingSettings, ViewSettings
    from ccop_pretrain.views import dataset as module
    from ccop_pretrain.views.listing import ImageListing, open_source

    torch.set_num_threads(1)
    source = open_source(folder)
    sizes = {key: Image.open(folder / key).size for key in source.keys}
    listing = ImageListing(source, Boxes(sizes), ReadingSettings())  # type: ignore[arg-type]
    dataset = module.ViewDataset(listing, ViewSettings(image_size=224), 0)
    places = [(0, index) for index in range(len(source))]
    for place in places:
        dataset[place]
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "views":
            pairs = [dataset[place] for place in places]
            np.savez(
                argument,
                pixels=np.stack([np.stack([pair.query_image, pair.key_image]) for pair in pairs]),
                boxes=np.concatenate([np.concatenate([pair.query_boxes, pair.key_boxes]) for pair in pairs]),
            )
            answer: Any = True
        else:
            answer = measured(module, ImageListing, dataset, places)
        print(json.dumps(answer), flush=True)


def measured(module: Any, listing: Any, dataset: Any, places: list[tuple[int, int]]) -> dict[str, float]:
    """Measure the seconds per image in all, and in a second pass by stage."""
    begun = time.process_time()
    for place in places:
        dataset[place]
    found = {"all": (time.process_time() - begun) / len(places)}
    clock = StageClock()
    kept = {}
    for name, stage in {**STAGES, "render_view": "render"}.items():
        owner = listing if name in ("read", "read_pixels", "boxes") else module
        if hasattr(owner, name):
            kept[owner, name] = getattr(owner, name)
            setattr(owner, name, clock.wrap(stage, kept[owner, name]))
    for place in places:
        dataset[place]
    for (owner, name), function in kept.items():
        setattr(owner, name, function)
    return found | {stage: seconds / len(places) for stage, seconds in clock.seconds.items()}


def prepare(images: Path, folder: Path, side: int) -> None:
    """Store images resized to `side` pixels as JPEG."""
    paths = [path for path in sorted(images.rglob("*")) if path.suffix in (".jpg", ".png")][:IMAGES]
    for number, path in enumerate(paths):
        image = Image.open(path).convert("RGB")
        scale = side / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        image.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:03}.jpg", quality=QUALITY)


def floor(folder: Path) -> float:
    """Return the seconds per image of Pillow's JPEG decoder."""
    contents = [path.read_bytes() for path in sorted(folder.iterdir())]
    begun = time.process_time()
    for content in contents:
        Image.open(io.BytesIO(content), formats=("JPEG",)).load()
    return (time.process_time() - begun) / len(contents)


class Version:
    """A process that measures one version.

    Args:
        python: interpreter of the version's environment.
        folder: the images.
    """

    def __init__(self, python: str, folder: Path) -> None:
        command = [python, "-W", "ignore", __file__, "--serve", str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, request: str) -> Any:
        """Send a request and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(folder: Path, rounds: int, pythons: dict[str, str]) -> dict[str, Any]:
    """Measure the versions alternately and compare their views."""
    versions = {name: Version(python, folder) for name, python in pythons.items()}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    floors = []
    for _ in range(rounds):
        for name, version in versions.items():
            times[name].append(version.ask("time"))
        floors.append(floor(folder))
    found: dict[str, Any] = {"floor": spread(floors)}
    for name, all_ in times.items():
        found[name] = {stage: spread([one[stage] for one in all_]) for stage in all_[0]}
        found[name]["images a second"] = 1000 / found[name]["all"]["median"]
    views = {}
    for name, version in versions.items():
        with tempfile.TemporaryDirectory() as temporary:
            version.ask(f"views {temporary}/views.npz")
            with np.load(f"{temporary}/views.npz") as stored:
                views[name] = {key: stored[key] for key in stored.files}
        version.close()
    if len(views) == 2:
        before, after = views.values()
        difference = np.abs(before["pixels"].astype(int) - after["pixels"])
        found["difference"] = {
            "mean of the pixels": float(difference.mean()),
            "99.9th percentile": float(np.percentile(difference, 99.9)),
            "greatest": int(difference.max()),
            "boxes are equal": bool(np.array_equal(before["boxes"], after["boxes"])),
        }
    return found


def spread(seconds: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum in milliseconds."""
    values = [1000 * value for value in seconds]
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--before", help="Python interpreter of an environment with an earlier version")
    parser.add_argument("--images", type=Path, help="folder of images; synthetic ones by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="longest sides of the images in pixels")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    if given.out is None:
        parser.error("--out is missing")
    pythons = {**({"before": given.before} if given.before else {}), "after": sys.executable}
    results: dict[str, Any] = {
        "expectation": EXPECTATION,
        "machine": facts("torch", "torchvision", "pillow", "numpy"),
        "milliseconds per image": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        images = given.images
        if images is None:
            import ccop_pretrain

            images = Path(temporary) / "scenes"
            ccop_pretrain.draw_scenes(out=images, images=IMAGES, size=480)
        for side in given.sides:
            folder = Path(temporary) / str(side)
            folder.mkdir()
            prepare(images, folder, side)
            # A pass over large images takes ten times as long.
            rounds = given.rounds if side == SIDES[0] else max(3, given.rounds // 3)
            results["milliseconds per image"][str(side)] = compare(folder, rounds, pythons)
    given.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results["milliseconds per image"], indent=2))


if __name__ == "__main__":
    main()
