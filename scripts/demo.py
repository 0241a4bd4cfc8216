"""Run the full pipeline on synthetic images: draw, propose, pre-train twice, load, evaluate, compare.

Run it with `make demo`; all output goes to `demo/`. Each step is an ordinary command. Detection is left out: with the
minute of training that the demo could give it, it finds next to nothing, whatever the weights.
"""

from __future__ import annotations

import itertools
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from ccop_hub.images import read_rgb

DEMO = Path("demo")
SCENES, PROPOSALS, PICTURES = DEMO / "scenes", DEMO / "proposals", DEMO / "pictures"
TRAIN = SCENES / "train2017"
RUNS = {objective: DEMO / "runs" / objective for objective in ("ccop", "mocov2")}
SEGMENTATION = DEMO / "segmentation"
LOG = DEMO / "log.txt"
STEPS, NUMBERS = 11, itertools.count(1)
BACKBONE = "resnet10t"
SHIPPED = f"{BACKBONE}.ccop_synthetic_21ep"

OBJECTS = ("--label-map", *(f"{shape}:1" for shape in range(2, 11)))
"""Give all shapes the label of the first; which shape it is, no network learns in a minute."""

HEAD = (
    *("--protocol", "cityscapes-fcn16-150ep", "--iterations", 100, "--batch-size", 8, "--scale-to", 160, 120),
    *("--crop-size", 96, "--stride", 64),
)
"""Segment objects from the background, with a small head, on small images."""

LOAD = """\
import torch, ccop_hub
backbone = ccop_hub.load({weights!r})
print(type(backbone), tuple(backbone(torch.zeros(1, 3, 128, 128)).shape))
"""

NEXT = """
Table         {table}
Picture sheet {sheet}
Output        {log}

mIoU: a small head segments objects from the background by each network's frozen features. A minute of pre-training
gains a few points; the last row is the network that is part of the package, trained for fourteen minutes.
docs/study.md has more.

next: ccop-pretrain proposals PHOTOS --out PROPOSALS   # PHOTOS: any folder of images
      ccop-pretrain run --images PHOTOS --proposals PROPOSALS --out RUN --backbone resnet50 --epochs 200
      ccop-eval detection --weights RUN --data COCO_DIR --out RESULT   # COCO's layout, any classes
The programs are in {bin}; each takes --help.
"""


def main() -> None:
    """Run all steps, stopping at the first failure."""
    started = time.perf_counter()
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    step("draw", "ccop-pretrain", "scenes", "--out", SCENES, "--images", 300, "--size", 160, "--clutter", 0)
    (SCENES / "semantic" / "classes.txt").write_text("background\nobject\n", encoding="utf-8")
    step("propose boxes", "ccop-pretrain", "proposals", TRAIN, "--out", PROPOSALS)
    look = ("--images", TRAIN, "--proposals", PROPOSALS)
    step("preview", "ccop-pretrain", "inspect", *look, "--out", PICTURES, "--count", 3)
    for objective, run in RUNS.items():
        boxes = ("--proposals", PROPOSALS) if objective == "ccop" else ()
        choice = ("--setting", "tiny", "--objective", objective, "--steps", 60)
        step("pre-train", "ccop-pretrain", "run", *choice, "--images", TRAIN, *boxes, "--out", run)
    step("load", "python", "-c", LOAD.format(weights=str(RUNS["ccop"])))
    results = []
    for name, weights in {"random": "random", **RUNS, "shipped": SHIPPED}.items():
        what = ("--weights", weights, "--backbone", BACKBONE, "--data", SCENES, "--frozen")
        out = SEGMENTATION / name
        step("evaluate", "ccop-eval", "segmentation", *what, *OBJECTS, *HEAD, "--out", out)
        results.append(out)
    # The table shows differences from its first row, the untrained network.
    table = DEMO / "table.md"
    print(step("compare", "ccop-eval", "compare", *results, "--markdown", table).rpartition("wrote ")[0])
    sheet = DEMO / "sheet.png"
    looks = [PICTURES / f"{name}.png" for name in ("proposals", "views", "jitters")]
    stack([*looks, *(folder / "pictures" / "predictions.png" for folder in results)], sheet)
    places = {"table": table.resolve(), "sheet": sheet.resolve(), "log": LOG.resolve()}
    print(NEXT.format(**places, bin=Path(sys.executable).parent))
    print(f"The demo took {(time.perf_counter() - started) / 60:.1f} min.")


def step(what: str, program: str, *arguments: object) -> str:
    """Run a command with its output in the log, and print one line: its number, itself and its duration.

    Returns:
        Its standard output.
    """
    words = [program, *map(str, arguments)]
    shown = f"{program} ..." if program == "python" else shlex.join(words)
    print(f"[{next(NUMBERS)}/{STEPS}] {what}: {shown}", end="", flush=True)
    begun = time.perf_counter()
    with LOG.open("a", encoding="utf-8") as log:
        print(f"\n$ {shlex.join(words)}", file=log, flush=True)
        command = [str(Path(sys.executable).parent / program), *words[1:]]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=log, text=True)
        log.write(done.stdout)
    print(f"  ({time.perf_counter() - begun:.0f} s)", flush=True)
    if done.returncode:
        sys.exit(f"demo: the command failed with exit code {done.returncode}; {LOG} contains its output")
    return done.stdout


def stack(pictures: list[Path], target: Path, width: int = 1400) -> None:
    """Stack pictures vertically in one PNG, each resized to a width of `width` pixels."""
    rows = []
    for path in pictures:
        picture = read_rgb(path)
        rows.append(picture.resize((width, round(picture.height * width / picture.width))))
    sheet = Image.new("RGB", (width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(target)


if __name__ == "__main__":
    main()
