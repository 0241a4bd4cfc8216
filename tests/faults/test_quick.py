"""The cheapest faults, tried on every change; `make faults` and `make soak` try all of them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ccop_hub.locks import folder_lock, output_lock

from . import report
from .command import contents, run
from .faults import paths
from .interruptions import after, kills, stopped
from .material import Material
from .trials import Bench, Trial, leftovers
from .warm import Warm

READERS = ("linear", "knn", "voc-svm", "regions", "segmentation")
"""Evaluations that read images in worker processes."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCOP_CACHE", str(root / "cache"))
        with Warm(root) as warm:
            material = Material(root, warm.run)
            material.make("scenes", "proposals", "run", "linear")
            yield Bench(material, warm, warm)


def only(bench: Bench, *names: str) -> Bench:
    """The same bench with some of its commands."""
    fewer = Bench(bench.material, bench.warm, bench.second)
    fewer.chosen = names
    return fewer


def failures(trials: Iterator[Trial]) -> list[str]:
    tried = list(trials)
    assert tried
    return [f"{trial.command}, {trial.fault}: {trial.lost}" for trial in tried if trial.lost]


def test_killed_commands_resume_to_the_same_bytes(bench: Bench) -> None:
    some = only(bench, "scenes", "run", "convert to Detectron2", "publish")
    assert failures(kills(some, random.Random(0), trials=1)) == []


def test_a_kill_of_real_processes_resumes_to_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    writer = bench.material.writers["scenes"]
    whole = contents(bench.material.scenes, lambda path: path.suffix in (".png", ".jpg", ".json"))
    assert len(whole) >= 16
    run(writer.command(tmp_path / "out"), after(random.uniform(0.3, 1.0), signal.SIGKILL))
    assert run(writer.command(tmp_path / "out")).code == 0
    assert writer.essence(tmp_path / "out") == whole
    assert leftovers(tmp_path) == []


def when(happens: Callable[[int], bool], number: signal.Signals) -> Callable[[int], None]:
    """Signal a command's process group twice once something happens."""

    def interfere(process: int) -> None:
        until = time.monotonic() + 60
        while not happens(process) and time.monotonic() < until:
            time.sleep(0.01)
        after(0.0, number, times=2)(process)

    return interfere


def _reads(process: int) -> bool:
    """Whether a process has a reader."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = stat.read_text().rpartition(")")
        except OSError:
            continue
        if "pt_data_worker" in name and fields.split()[1] == str(process):
            return True
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for readers in Linux's /proc")
@pytest.mark.parametrize("name", READERS)
def test_a_signal_to_the_group_of_a_command_with_readers(bench: Bench, name: str) -> None:
    number = random.choice((signal.SIGTERM, signal.SIGINT))
    writer = bench.material.writers[name]
    out = bench.place(f"signalled {number.name}", writer)
    outcome = bench.warm.run(writer.command(out), when(_reads, number), timeout=60)
    assert (outcome.code, outcome.orphans) == (128 + number, ())
    assert stopped(outcome, number, outcome.wall, out) == ""
    assert outcome.last == f"ccop-eval: stopped by {number.name}"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_group_is_told_in_one_line(
    bench: Bench, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = ["ccop-pretrain", "scenes", "--out", tmp_path / "out", "--images", 2000, "--workers", 1]
    drawing = when(lambda _: any((tmp_path / "out" / "train2017").glob("*.png")), number)
    outcome = bench.warm.run(command, drawing, timeout=60)
    assert (outcome.code, outcome.flaw()) == (code, "")
    assert leftovers(tmp_path / "out") == []


@pytest.mark.parametrize(
    "name", ["scenes", "proposals", "inspect", "run", "convert", "convert to timm", "publish", *READERS, "visualize"]
)
def test_a_second_writer_is_refused_by_name(bench: Bench, name: str) -> None:
    writer = bench.material.writers[name]
    out = bench.place("held", writer)
    converts = name.startswith("convert")
    if not converts:
        out.mkdir()
    with output_lock(out) if converts else folder_lock(out):
        outcome = bench.warm.run(writer.command(out), timeout=60)
    assert outcome.refusal() == ""
    assert f"{out} is being written by process {os.getpid()} on " in outcome.last
    assert not out.exists() or list(out.iterdir()) == []
    assert leftovers(out.parent) == []


def test_wrong_paths_are_refused_in_one_line(bench: Bench) -> None:
    assert failures(paths(only(bench, "scenes", "convert", "linear"), random.Random(0), inputs=("ELOOP",))) == []


@pytest.mark.parametrize("kind", ["FIFO", "device"])
def test_what_never_ends_is_not_opened(bench: Bench, tmp_path: Path, kind: str) -> None:
    for name in ("a.yaml", "a.txt"):
        if kind == "FIFO":
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).symlink_to("/dev/zero")
    out = ["--out", tmp_path / "out"]
    for command in (
        ["ccop-pretrain", "scenes", "--config", tmp_path / "a.yaml", *out],
        ["ccop-pretrain", "proposals", tmp_path / "a.txt", *out],
    ):
        refused = bench.warm.run(command, timeout=60)
        assert refused.refusal() == ""
        assert str(tmp_path / "a.") in refused.last


def test_the_table_counts_what_was_held_lost_and_skipped() -> None:
    trials = [Trial("k", "f", "a"), Trial("k", "f", "b", lost="why"), Trial("k", "f", "c", skipped="no root")]
    facts = {"date": "2026-01-02", "seconds": 3, "machine": "m"}
    kinds = {"some": {**facts, "trials": [trial.document() for trial in trials]}, "none": {**facts, "trials": []}}
    section = report.faults_section({"kinds": kinds})
    assert "3 trials on 2026-01-02 (m); the kinds together took 6 s" in section
    assert "| k | f | 2 | 1 | 1 | 1 |" in section
    assert "`b`: why" in section


ODD = os.fsdecode(b"\xff\xfe \xe9")
"""A file name that is not UTF-8 (Latin-1's "é" among others)."""


@pytest.fixture(scope="module")
def oddly_named(bench: Bench) -> dict[str, Path]:
    """The inputs under names that are not UTF-8: images, class folders and a segmentation folder."""
    material, root = bench.material, bench.material.root / f"odd {ODD}"
    images, classes, labelled = (root / name for name in ("images", "classes", "labelled"))
    for number, image in enumerate(sorted(material.images.iterdir())):
        name = f"{ODD}{number}{image.suffix}"
        label = material.scenes / "semantic" / "train2017" / f"{image.stem}.png"
        copies = {
            image: [images / name, classes / "train" / f"{number % 2}{ODD}" / name, labelled / "train2017" / name],
            label: [labelled / "semantic" / "train2017" / f"{ODD}{number}.png"],
        }
        copies[image] += [classes / "val" / f"{number % 2}{ODD}" / name, labelled / "val2017" / name]
        copies[label] += [labelled / "semantic" / "val2017" / f"{ODD}{number}.png"]
        for source, targets in copies.items():
            for target in targets:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
    shutil.copy(material.scenes / "semantic" / "classes.txt", labelled / "semantic")
    paths = {"images": images, "classes": classes, "labelled": labelled, "out": root / "out"}
    return paths | {"voc": _odd_voc(material, root), "coco": _odd_coco(material, root)}


def _odd_voc(material: Material, root: Path) -> Path:
    voc = root / "VOC2007"
    shutil.copytree(material.voc, voc)
    prefix = "n" + ODD.replace(" ", "")  # at the start of a list, ODD would be a byte order mark
    for image in (voc / "JPEGImages").iterdir():
        image.rename(image.with_name(f"{prefix}{image.name}"))
    for file in (voc / "ImageSets" / "Main").iterdir():
        rows = file.read_bytes().splitlines()
        file.write_bytes(b"".join(os.fsencode(prefix) + row + b"\n" for row in rows))
    return voc


def _odd_coco(material: Material, root: Path) -> Path:
    coco = root / "coco"
    shutil.copytree(material.scenes, coco)
    for file in (coco / "annotations").iterdir():
        document = json.loads(file.read_text())
        for image in document["images"]:
            folder = coco / file.stem.removeprefix("instances_")
            (folder / image["file_name"]).rename(folder / f"{ODD}{image['file_name']}")
            image["file_name"] = f"{ODD}{image['file_name']}"
        file.write_text(json.dumps(document))
    return coco


def test_names_that_are_not_utf8_in_pretraining(bench: Bench, oddly_named: dict[str, Path]) -> None:
    odd, out, allowed = oddly_named["images"], oddly_named["out"], ["--max-unreadable", 0.9]
    images = odd.with_name(f"mixed {ODD}")
    shutil.copytree(odd, images)
    shutil.copytree(bench.material.images, images, dirs_exist_ok=True)
    boxes = ["--workers", 1, "--to-coco", out / "boxes.json", *allowed]
    found = bench.warm.run(["ccop-pretrain", "proposals", images, "--out", out / "p", *boxes])
    assert (found.code, found.flaw()) == (0, ""), found.error
    assert (out / "p" / "skipped.csv").read_text().count("not valid UTF-8") == len(list(odd.iterdir()))
    assert len(json.loads((out / "boxes.json").read_text())) > 0
    both = ["--images", images, "--proposals", out / "p"]
    sheets = ["--out", out / "i", "--count", 3, "--draws", 8, "--image-size", 32, *allowed]
    seen = bench.warm.run(["ccop-pretrain", "inspect", *both, *sheets])
    assert (seen.code, seen.flaw()) == (0, "")
    assert "views.png" in contents(out / "i")
    flags = ["--config", bench.material.config, "--steps", 2, "--pictures", 2, *allowed]
    done = bench.warm.run(["ccop-pretrain", "run", *both, "--out", out / "r", *flags])
    assert (done.code, done.flaw()) == (0, ""), done.error
    assert (out / "r" / "skipped.csv").read_text().count("not valid UTF-8") == len(list(odd.iterdir()))
    (odd / f"damaged {ODD}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    flags = [*flags, "--objective", "mocov2", "--steps", 7]
    alone = bench.warm.run(["ccop-pretrain", "run", "--images", odd, "--out", out / "m", *flags])
    assert (alone.code, alone.flaw()) == (0, ""), alone.error
    assert (out / "m" / "skipped.csv").read_text().count("\ndamaged ") == 1
    again = bench.warm.run(["ccop-pretrain", "run", "--images", odd, "--out", out / "m", *flags])
    assert (again.code, "finished" in again.output) == (0, True), again.error


def test_names_that_are_not_utf8_in_evaluations(bench: Bench, oddly_named: dict[str, Path]) -> None:
    out, material = oddly_named["out"], bench.material
    results: list[object] = []
    tasks = [("linear", "classes"), ("knn", "classes"), ("segmentation", "labelled"), ("voc-svm", "voc")]
    for name, data in [*tasks, ("regions", "coco")]:
        flags = [str(word) for word in material.writers[name].command(out / name)]
        flags[flags.index("--data") + 1] = str(oddly_named[data])
        done = bench.warm.run(flags)
        assert (name, done.code, done.flaw()) == (name, 0, ""), done.error
        assert list((out / name / "pictures").glob("*.png"))
        results.append(out / name)
    images = sorted(oddly_named["images"].glob(f"{ODD}*"))[:2]
    drawn = ["ccop-eval", "visualize", *images, "--weights", material.run, "--image-size", 64, "--out", out / "v"]
    seen = bench.warm.run(drawn)
    assert (seen.code, seen.flaw()) == (0, ""), seen.error
    assert sorted(os.fsencode(path.name) for path in (out / "v").glob("*.png")) == [
        os.fsencode(f"{image.stem}.png") for image in images
    ]
    odd, flags = oddly_named["images"], ["--accelerator", "cpu", "--max-unreadable", 0.5, "--out"]
    predict = ["ccop-eval", "predict", out / "segmentation", "--images", odd, *flags, out / "predicted"]
    embed = ["ccop-hub", "embed", odd, "--weights", material.weights, "--image-size", 32, *flags, out / "features.npy"]
    for command, said in ((predict, " images: "), (embed, " rows of 512 features")):
        done = bench.warm.run(command)
        assert (done.code, done.flaw(), said in done.output) == (0, "", True), done.error
    pages = ["--html", out / "page.html", "--markdown", out / "page.md", "--csv", out / "page.csv"]
    compared = bench.warm.run(["ccop-eval", "compare", *results, *pages])
    assert (compared.code, compared.flaw()) == (0, ""), compared.error
    assert b"linear" in (out / "page.html").read_bytes()
