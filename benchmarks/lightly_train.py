"""Compare pre-training with lightly-train: speed, memory, time to the first step, and lines of code.

    python -m venv OTHER && OTHER/bin/pip install lightly-train
    python benchmarks/lightly_train.py --python OTHER/bin/python --images IMAGES --proposals PROPOSALS --out OUT.json

Each program trains for a few steps as its user would start it from Python: lightly-train's SimCLR, and MoCo v2 and CCOP
of this project. They take turns, on the same images, with the same batch, network, image size, precision and number of
data-loading processes, each in a process of its own. A hook on the optimiser notes when each step ends. Speed is
measured from the end of the second step to the last, by the clock and by the processor time of the training process,
which does not depend on what else the machine does; memory is the peak of the process plus the private memory of its
data-loading processes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import facts, spread, tree_memory, update
from torch.utils.flop_counter import FlopCounterMode

from ccop_hub.architectures import ResNetFPN

HOOK = """
import time, torch
from torch.optim.optimizer import register_optimizer_step_post_hook
torch.set_num_threads({threads})
notes = open({notes!r}, "w")
register_optimizer_step_post_hook(lambda *_: print(time.time(), time.process_time(), file=notes, flush=True))
"""

PROGRAMS = {
    "lightly-train, SimCLR": """
import lightly_train
lightly_train.pretrain(out={out!r}, data={images!r}, model="torchvision/{backbone}", method="simclr", {options})
""",
    "ours, MoCo v2": """
import ccop_pretrain
ccop_pretrain.pretrain({images!r}, {out!r}, backbone={backbone!r}, objective="mocov2", {options})
""",
    "ours, CCOP": """
import ccop_pretrain
# proposals = ccop_pretrain.propose(images, "proposals")
ccop_pretrain.pretrain({images!r}, {out!r}, backbone={backbone!r}, proposals={proposals!r}, {options})
""",
}
"""What a user writes, by program. The proposals are made once beforehand; their line counts."""


def options(program: str, given: argparse.Namespace, size: int, batch: int, images: int) -> str:
    """Return the settings that all programs share, in each one's words."""
    if program.startswith("lightly"):
        epochs = -(-given.steps // (images // batch))
        shared = f"epochs={epochs}, batch_size={batch}, num_workers={given.workers}, accelerator='cpu', devices=1"
        transform = f"transform_args={{'image_size': ({size}, {size})}}"
        return f"{shared}, precision='32-true', {transform}, trainer_args={{'max_steps': {given.steps}}}"
    shared = f"image_size={size}, batch_size={batch}, steps={given.steps}, workers={given.workers}, accelerator='cpu'"
    return f"{shared}, pictures=0, tensorboard=False"


def trained(program: str, backbone: str, size: int, batch: int, given: argparse.Namespace) -> dict[str, float]:
    """Train for a few steps, and measure."""
    count = sum(path.is_file() for path in given.images.rglob("*"))
    with tempfile.TemporaryDirectory() as scratch:
        notes, log = Path(scratch) / "steps", Path(scratch) / "log"
        values = {"images": str(given.images.resolve()), "out": str(Path(scratch) / "out"), "backbone": backbone}
        values |= {"proposals": str(given.proposals.resolve())}
        code = PROGRAMS[program].format(**values, options=options(program, given, size, batch, count))
        code = HOOK.format(threads=given.threads, notes=str(notes)) + code
        python = given.python if program.startswith("lightly") else sys.executable
        environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
        begun = time.time()
        with log.open("w") as output:
            command = [str(python), "-c", code]
            running = subprocess.Popen(command, cwd=scratch, env=environment, stdout=output, stderr=subprocess.STDOUT)
            memory = 0
            while running.poll() is None:
                memory = max(memory, tree_memory(running.pid))
                time.sleep(0.2)
        lines = notes.read_text().splitlines() if notes.exists() else []
        ended, worked = zip(*(map(float, line.split()) for line in lines), strict=True) if lines else ((), ())
        if running.returncode or len(ended) < given.steps:
            raise SystemExit(f"{program} failed after {len(ended)} steps:\n{log.read_text()[-2000:]}")
    return {
        "images/s": batch * (len(ended) - 2) / (ended[-1] - ended[1]),
        "images/s of processor time": batch * (len(ended) - 2) / (worked[-1] - worked[1]),
        "first step, s": ended[0] - begun,
        "memory, MB": memory / 2**20,
    }


def operations(backbone: str, size: int) -> dict[str, float]:
    """Count the floating-point operations per image in the networks: a backward pass takes twice those of the forward.

    SimCLR trains on two views; MoCo v2 trains on one and only computes the keys of the other; CCOP does the same with
    the pyramid.
    """
    network, pixels = ResNetFPN(backbone).eval(), torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as alone:
        network.backbone(pixels)
    with FlopCounterMode(display=False) as pyramid:
        network.pyramid(network.stages(pixels))
    forward, both = alone.get_total_flops(), pyramid.get_total_flops()
    return dict(zip(PROGRAMS, (2 * 3 * forward, 3 * forward + forward, 3 * both + both), strict=True))


def line_count(program: str) -> int:
    """Count the lines that a user writes."""
    return len(PROGRAMS[program].strip().splitlines())


def main() -> None:
    """Parse the command line, run all programs by turns and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="Python of the environment with lightly-train")
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--proposals", type=Path, required=True, help="their proposals")
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file for the results, updated if it exists; printed by default")
    given = parser.parse_args()
    script = "import importlib.metadata as m; print(m.version('lightly-train'))"
    version = subprocess.run([given.python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    machine = facts("torch", "lightning") | {"lightly-train": version}
    for backbone in given.backbones:
        for size in given.sizes:
            rounds: dict[str, list[dict[str, float]]] = {program: [] for program in PROGRAMS}
            for _ in range(given.rounds):
                for program, found in rounds.items():
                    found.append(trained(program, backbone, size, given.batch, given))
            programs: dict[str, Any] = {
                program: {name: spread([each[name] for each in found]) for name in found[0]}
                for program, found in rounds.items()
            }
            flags = {name: getattr(given, name) for name in ("batch", "steps", "rounds", "workers", "threads")}
            entry = {"settings": flags, "machine": machine, "programs": programs}
            entry["operations per image"] = operations(backbone, size)
            update(given.out, {f"{backbone}, {size} px": entry, "lines": {each: line_count(each) for each in PROGRAMS}})


if __name__ == "__main__":
    main()
