"""Killed and resumed runs give the same result as an uninterrupted one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ccop_eval.cli import main
from ccop_eval.results.result import Result

Draw = Callable[..., Path]

ITERATIONS, PERIOD, SCORED = 4, 2, 2
"""Total iterations, iterations between checkpoints, and iterations until the intermediate evaluation."""

KILLED = """
import json, os, signal, sys
from ccop_eval.detection.engine import load_engine
load_engine()
import torch
from ccop_eval.cli import main
from ccop_eval.detection import pictures, run, trainer

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def kill_at(place, number):
    if place in ("step", "signal"):
        step = trainer.Trainer.run_step
        def run_step(self):
            if self.iter == number:
                kill() if place == "step" else signal.raise_signal(signal.SIGTERM)
            step(self)
        trainer.Trainer.run_step = run_step
    elif place == "scoring":
        test, calls = trainer.Trainer.test.__func__, []
        def counted(*arguments):
            calls.append(1)
            return kill() if len(calls) == number else test(*arguments)
        trainer.Trainer.test = classmethod(counted)
    else:
        save = torch.save
        def half(data, file):
            of = data.get("iteration") if isinstance(data, dict) else None
            if of == number and ("final" in file.name) == (place == "last checkpoint"):
                file.write(b"half a file")
                file.flush()
                kill()
            save(data, file)
        torch.save = half

for place, number, arguments in json.loads(sys.argv[1]):
    # A process each; the slow imports above are shared.
    child = os.fork()
    if not child:
        kill_at(place, number)
        os._exit(main(arguments))
    expected = 143 if place == "signal" else -signal.SIGKILL
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == expected, place
"""

PLACES = [
    ("step", 0, None),
    ("step", 3, "after iteration 2 of 4"),
    ("signal", 0, "after iteration 1 of 4"),
    ("checkpoint", 3, "after iteration 2 of 4"),
    ("scoring", 1, "after iteration 2 of 4"),
    ("last checkpoint", 3, "the training is finished: scoring it"),
    ("scoring", 2, "the training is finished: scoring it"),
]
"""Where a run is killed (before a step, while writing a checkpoint, or during scoring) or signalled (which saves a
checkpoint after the step), and what the same command prints when it resumes."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, draw_split: Callable[..., None]) -> Path:
    root = tmp_path_factory.mktemp("resume")
    draw_split(root / "shapes", "train", images=7, seed=0)
    draw_split(root / "shapes", "val", images=2, seed=1)
    return root


def _arguments(work: Path, out: str, *more: str) -> list[str]:
    paths = [f"--data={work / 'shapes'}", f"--out={work / out}"]
    run = ["--weights=random", "--backbone=resnet18", "--protocol=small-cpu", "--batch-size=2", "--workers=0"]
    periods = [f"--save-every={PERIOD}", f"--evaluate-every={SCORED}"]
    return ["detection", *paths, *run, f"--iterations={ITERATIONS}", *periods, *more]


@pytest.fixture(scope="module")
def uninterrupted(work: Path) -> Path:
    assert main(_arguments(work, "whole")) == 0
    return work / "whole"


@pytest.fixture(scope="module")
def killed(work: Path) -> None:
    """A run killed at each of `PLACES`."""
    cases = [(place, number, _arguments(work, f"killed-{place}-{number}")) for place, number, _ in PLACES]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, "-c", KILLED, json.dumps(cases)], env=environment, check=False)
    assert done.returncode == 0


def _tensors(out: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(out / "detectron2" / "model_final.pth")
    optimizer = checkpoint["trainer"]["_trainer"]["optimizer"]["state"]
    momentum = {f"momentum.{key}": value["momentum_buffer"] for key, value in optimizer.items()}
    return {**checkpoint["model"], **momentum}


@pytest.mark.usefixtures("killed")
@pytest.mark.parametrize(("place", "number", "told"), PLACES)
def test_a_killed_run_goes_on_to_the_same_network(
    work: Path, uninterrupted: Path, capfd: pytest.CaptureFixture[str], place: str, number: int, told: str | None
) -> None:
    out = work / f"killed-{place}-{number}"
    assert not (out / "result.json").exists()
    assert main(_arguments(work, out.name)) == 0
    printed = capfd.readouterr().out
    assert (told in printed) if told else ("after iteration" not in printed)
    assert [path.name for path in (out / "detectron2").glob("*.pth")] == ["model_final.pth"]
    whole, resumed = _tensors(uninterrupted), _tensors(out)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    one, other = Result.read(uninterrupted), Result.read(out)
    assert one.metrics == other.metrics
    assert [entry["step"] for entry in one.curve if "bbox/AP" in entry] == [SCORED, ITERATIONS]
    assert other.curve[-1]["step"] == ITERATIONS
    assert other.curve[-1]["bbox/AP"] == one.metrics["bbox/AP"]


def test_scoring_alone_gives_the_same_ap_and_changes_no_checkpoint(work: Path, uninterrupted: Path) -> None:
    before = Result.read(uninterrupted)
    checkpoint = (uninterrupted / "detectron2" / "model_final.pth").read_bytes()
    predictions = uninterrupted / "detectron2" / "inference" / "coco_instances_results.json"
    written = json.loads(predictions.read_text())
    predictions.unlink()
    assert main(_arguments(work, "whole", "--eval-only")) == 0
    after = Result.read(uninterrupted)
    assert after.metrics == before.metrics
    assert after.per_class == before.per_class
    assert after.curve == before.curve
    assert json.loads(predictions.read_text()) == written
    assert "scored again without training" in after.notes
    assert (uninterrupted / "detectron2" / "model_final.pth").read_bytes() == checkpoint


@pytest.mark.parametrize(
    ("out", "more", "told"),
    [
        ("whole", ["--resume=false"], "remove --no-resume to resume it, give --overwrite to replace it"),
        ("whole", ["--seed=1"], "contains a run with other settings: seed (0 there, 1 now)"),
        (
            "whole",
            ["--eval-only", "--load=backbone"],
            "with other settings: load (backbone+fpn there, backbone now)",
        ),
        ("whole", ["--iterations=9"], "contains a run with other settings: iterations"),
        ("nothing", ["--eval-only"], "contains no finished run to score"),
        ("whole", ["--eval-only", "--overwrite"], "--overwrite would remove"),
    ],
)
def test_another_run_is_neither_gone_on_with_nor_scored(
    work: Path,
    uninterrupted: Path,
    capsys: pytest.CaptureFixture[str],
    out: str,
    more: list[str],
    told: str,
) -> None:
    before = (uninterrupted / "result.json").read_bytes()
    assert main(_arguments(work, out, *more)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert (uninterrupted / "result.json").read_bytes() == before
    assert not (work / "nothing").exists()
