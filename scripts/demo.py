"""Run the full pipeline on synthetic images: draw, propose, pre-train twice, load, evaluate three weights, compare.

Run it with `make demo`; all output goes to `demo/`. Each step is an ordinary command, which is printed first.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from ccop_hub.images import read_rgb

REPO = Path(__file__).resolve().parent.parent
DEMO = Path("demo")
SCENES, PROPOSALS, PICTURES = DEMO / "scenes", DEMO / "proposals", DEMO / "pictures"
TRAIN = SCENES / "train2017"
RUNS = {objective: DEMO / "runs" / objective for objective in ("ccop", "mocov2")}
DETECTION = DEMO / "detection"

LOAD = """\
import torch
backbone = torch.hub.load({repo!r}, "ccop_resnet18", source="local", weights={weights!r})
print(type(backbone), tuple(backbone(torch.zeros(1, 3, 128, 128)).shape))
"""

NEXT = """
Table         {table}
Picture sheet {sheet}

Next, on your own data:
  ccop-pretrain proposals PHOTOS --out PROPOSALS                    # PHOTOS: any folder of images
  ccop-pretrain inspect --images PHOTOS --proposals PROPOSALS --out LOOK
  ccop-pretrain run --images PHOTOS --proposals PROPOSALS --out RUN --backbone resnet50 --epochs 200
  ccop-eval detection --weights RUN --data COCO_DIR --out RESULT    # COCO's layout, any classes
  ccop-eval compare RESULT/result.json OTHER/result.json
The programs are in {bin}; each takes --help.
"""


def main() -> None:
    """Run all steps, stopping at the first failure."""
    started = time.perf_counter()
    shutil.rmtree(DEMO, ignore_errors=True)
    step("ccop-pretrain", "scenes", "--out", SCENES, "--images", 160, "--seed", 0, "--size", 192, "--clutter", 0)
    step("ccop-pretrain", "proposals", TRAIN, "--out", PROPOSALS)
    look = ("--images", TRAIN, "--proposals", PROPOSALS)
    step("ccop-pretrain", "inspect", *look, "--out", PICTURES, "--count", 3)
    for objective, run in RUNS.items():
        boxes = ("--proposals", PROPOSALS) if objective == "ccop" else ()
        choice = ("--setting", "tiny", "--objective", objective, "--backbone", "resnet18")
        length = ("--batch-size", 16, "--steps", 60, "--log-every", 5)
        step("ccop-pretrain", "run", *choice, *length, "--images", TRAIN, *boxes, "--out", run)
    step("python", "-c", LOAD.format(repo=str(REPO), weights=str(RUNS["ccop"])))
    results = []
    for name, weights in {**RUNS, "random": "random"}.items():
        out = DETECTION / name
        what = ("--weights", weights, "--backbone", "resnet18", "--data", SCENES)
        how = ("--protocol", "small-cpu", "--iterations", 120)
        step("ccop-eval", "detection", *what, *how, "--out", out)
        results.append(out / "result.json")
    # The table shows differences from its first row, the untrained network.
    table = DEMO / "table.md"
    step("ccop-eval", "compare", results[-1], *results[:-1], "--markdown", table)
    sheet = DEMO / "sheet.png"
    looks = [PICTURES / f"{name}.png" for name in ("proposals", "views", "jitters")]
    stack([*looks, *(DETECTION / name / "detections.png" for name in RUNS)], sheet)
    print(NEXT.format(table=table.resolve(), sheet=sheet.resolve(), bin=Path(sys.executable).parent))
    print(f"The demo took {(time.perf_counter() - started) / 60:.1f} min.")


def step(program: str, *arguments: object) -> None:
    """Print a command as a user would type it, run it, and print its duration."""
    words = [program, *map(str, arguments)]
    print(f"\n$ {shlex.join(words)}", flush=True)
    begun = time.perf_counter()
    done = subprocess.run([str(Path(sys.executable).parent / program), *words[1:]], check=False)
    if done.returncode:
        sys.exit(f"demo: the command above failed with exit code {done.returncode}")
    print(f"({time.perf_counter() - begun:.0f} s)", flush=True)


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
