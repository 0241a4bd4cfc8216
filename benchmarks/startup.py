"""Measure the start-up of the programs and the time to load a network.

    python benchmarks/startup.py --out RESULTS.json [--before PYTHON] [--rounds 20]

Times are processor seconds, of whole processes unless a row says "warm". The cases alternate, so that a busy machine
slows all of them equally; compare the ratios. `--before` is the Python interpreter of an environment with an earlier
version of this project installed.

The weights are a random ResNet-50 in a temporary folder, as a file of `torch.save` and as safetensors with a pyramid.
`hub` and `timm` load the same tensors into the same network: `torch.hub.load` of this project's entry point, and
`timm.create_model` followed by `torch.load` and `load_state_dict`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import facts

EXPECTATION = (
    "--help of the three programs at most 0.2 s: imports take the time, and it needs no YAML, logging or metadata. "
    "info below 2 s (4.7 s): the header of a safetensors file contains all that is printed, so neither torch nor a "
    "network is needed; a PyTorch file still needs torch. torch.hub.load at most 1.3 times timm.create_model and "
    "load_state_dict, in a new process and in a warm one (1.1 and 1.8): the network was built three times and "
    "initialised each time; a table of shapes replaces two of them."
)

PREPARE = """
import sys
from pathlib import Path
import torch
from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.formats.checkpoint import save_checkpoint
network = build_resnet_fpn("resnet50", 0)
save_checkpoint(Path(sys.argv[1]) / "exported", network.state_dict(), {"arch": "resnet50"})
torch.save(network.backbone.state_dict(), Path(sys.argv[1]) / "weights.pth")
"""

PROGRAM = "import sys; from {package}.cli import main; sys.exit(main())"

HUB = "network = torch.hub.load({repo!r}, 'ccop_resnet50', source='local', weights={weights!r})"
TIMM = (
    "import timm; network = timm.create_model('resnet50', num_classes=0); "
    "network.load_state_dict(torch.load({weights!r}))"
)
TIMM_SAFETENSORS = (
    "import timm; from safetensors.torch import load_file; network = timm.create_model('resnet50', num_classes=0); "
    "network.load_state_dict({{name[9:]: value for name, value in load_file({weights!r}).items() "
    "if name.startswith('backbone.')}})"
)

WARM = """
import time, torch
def once():
    {body}
once()
times = []
for _ in range(3):
    begun = time.process_time()
    once()
    times.append(time.process_time() - begun)
import statistics
print(statistics.median(times))
"""


def cases(folder: Path, repo: Path) -> dict[str, tuple[str, list[str], bool]]:
    """Map each case to its code, arguments, and whether it prints its own (warm) time."""
    found: dict[str, tuple[str, list[str], bool]] = {"python -c pass": ("pass", [], False)}
    for name, package in (("ccop-hub", "ccop_hub"), ("ccop-pretrain", "ccop_pretrain"), ("ccop-eval", "ccop_eval")):
        found[f"{name} --help"] = (PROGRAM.format(package=package), ["--help"], False)
    info = PROGRAM.format(package="ccop_hub")
    found["info, safetensors"] = (info, ["info", str(folder / "exported")], False)
    found["info, PyTorch file"] = (info, ["info", str(folder / "weights.pth")], False)
    stored = folder / "exported" / "backbone_fpn.safetensors"
    for kind, weights, timm_body in (
        ("PyTorch file", folder / "weights.pth", TIMM.format(weights=str(folder / "weights.pth"))),
        ("safetensors", folder / "exported", TIMM_SAFETENSORS.format(weights=str(stored))),
    ):
        for name, body in (("hub", HUB.format(repo=str(repo), weights=str(weights))), ("timm", timm_body)):
            found[f"{name}, {kind}"] = (f"import torch; {body}", [], False)
            found[f"{name}, {kind}, warm"] = (WARM.format(body=body), [], True)
    return found


def processor_seconds(python: str, code: str, arguments: list[str], prints_time: bool) -> float:
    """Run code in a new process and return its processor time, or the time that it prints."""
    command = [python, "-W", "ignore", "-c", code, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    after = os.times()
    if prints_time:
        return float(done.stdout.split()[-1])
    return after.children_user + after.children_system - before.children_user - before.children_system


def repository(python: str) -> Path:
    """Return the folder of `hubconf.py` for an environment."""
    code = "import ccop_hub, pathlib; print(pathlib.Path(ccop_hub.__file__).resolve().parent.parent)"
    return Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())


def measure(pythons: dict[str, str], rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Measure all cases alternately: version -> case -> median, minimum and maximum in seconds."""
    times: dict[str, dict[str, list[float]]] = {version: {} for version in pythons}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run([sys.executable, "-W", "ignore", "-c", PREPARE, temporary], check=True)
        todo = {version: cases(folder, repository(python)) for version, python in pythons.items()}
        for turn in range(rounds + 1):  # the first turn fills the caches of the disk and is not counted
            for case in todo["after"]:
                # Loading takes seconds, and varies less than the programs' start.
                if turn > max(2, rounds // 10) and "help" not in case and "pass" not in case:
                    continue
                for version, python in pythons.items():
                    taken = processor_seconds(python, *todo[version][case])
                    if turn:
                        times[version].setdefault(case, []).append(taken)
    return {
        version: {
            case: {"median": statistics.median(all_), "least": min(all_), "greatest": max(all_), "runs": len(all_)}
            for case, all_ in found.items()
        }
        for version, found in times.items()
    }


def loading_ratios(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the median time of `torch.hub.load` relative to timm's, for each kind of file and process."""
    kinds = [case.removeprefix("hub, ") for case in found if case.startswith("hub, ")]
    return {kind: found[f"hub, {kind}"]["median"] / found[f"timm, {kind}"]["median"] for kind in kinds}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--before", help="Python interpreter of an environment with an earlier version")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    pythons = {**({"before": given.before} if given.before else {}), "after": sys.executable}
    begun = time.time()
    seconds = measure(pythons, given.rounds)
    ratios = {version: loading_ratios(found) for version, found in seconds.items()}
    content = {
        "expectation": EXPECTATION,
        "machine": facts("torch", "timm", "safetensors", "cyclopts"),
        "processor_seconds": seconds,
        "ratios": ratios,
        "minutes": (time.time() - begun) / 60,
    }
    given.out.write_text(json.dumps(content, indent=2) + "\n")
    for version, found in seconds.items():
        for case, value in found.items():
            print(f"{version:7} {case:30} {value['median']:.3f} s ({value['least']:.3f} to {value['greatest']:.3f})")
    print(json.dumps(ratios, indent=2))


if __name__ == "__main__":
    main()
