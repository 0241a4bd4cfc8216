import csv
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from ccop_pretrain.cli import main
from ccop_pretrain.proposals import fast_search
from ccop_pretrain.proposals import publication as proposal_publication
from ccop_pretrain.proposals import search as proposal_search
from ccop_pretrain.proposals.fast_search import compilation
from ccop_pretrain.proposals.ledger import Ledger, PartWriter, Share, remove_parts
from ccop_pretrain.proposals.run import make_proposals, search_share
from ccop_pretrain.proposals.selective_search import image_generator, propose
from ccop_pretrain.settings import ProposalSettings
from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.image_sources.source import open_source
from ccop_hub.locks import folder_lock
from ccop_hub.proposals import shards as proposal_shards
from ccop_hub.proposals.shards import ImageProposals, Manifest
from ccop_hub.proposals.store import ProposalStore


def block(index: int) -> tuple[int, int, int, int]:
    """Box of the only object in image `index`, xyxy in pixels."""
    left, top = 10 + 12 * index, 8 + 5 * index
    return left, top, left + 40 + index, top + 44


def found(boxes: np.ndarray, expected: tuple[int, int, int, int]) -> bool:
    """Whether a box was found, within the 4 pixels by which smoothed outlines differ (random scores pick one)."""
    return bool((np.abs(boxes - expected).max(axis=1) <= 4).any())


def write_image(path: Path, index: int, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), 40, np.uint8)
    left, top, right, bottom = block(index)
    pixels[top:bottom, left:right] = (200, 30 * index, 90)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Seven images: the first by far the largest, so that it finishes last; one truncated; one without objects."""
    root = tmp_path / "images"
    for index in range(7):
        size = (560, 420) if index == 0 else (150 + index, 110)
        write_image(root / ("a" if index % 2 else "b/c") / f"{index}.png", index, size)
    cut = (root / "a" / "1.png").read_bytes()
    (root / "a" / "cut.png").write_bytes(cut[: len(cut) // 2])
    Image.new("RGB", (50, 12)).save(root / "flat.png")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """All output files except the settings, which contain the folder and the number of workers."""
    assert not [path for path in folder.iterdir() if path.is_dir()]
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "settings.yaml"}


def wanted(images: Path, out: Path, **changed: Any) -> ProposalSettings:
    """Settings that search in this process and tolerate any number of unreadable images."""
    return ProposalSettings(**{"images": images, "out": out, "workers": 1, "max_unreadable": 1.0, **changed})


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the images searched from now on; works only with one worker."""
    shapes: list[tuple[int, ...]] = []

    def spy(pixels: np.ndarray, *arguments: Any) -> np.ndarray:
        shapes.append(pixels.shape)
        return propose(pixels, *arguments)

    monkeypatch.setattr(proposal_search, "propose", spy)
    return shapes


def test_boxes_belong_to_their_image_with_many_workers(images: Path, tmp_path: Path) -> None:
    make_proposals(wanted(images, tmp_path / "out", workers=3))
    store = ProposalStore.open(tmp_path / "out")
    assert store.images == sorted(store.images)
    for image in store.images:
        pixels = np.asarray(Image.open(images / image).convert("RGB"))
        assert store.size(image) == (pixels.shape[1], pixels.shape[0])
        np.testing.assert_array_equal(store.boxes(image), propose(pixels, image_generator(0, image)))
        if image != "flat.png":
            index = int(Path(image).stem)
            assert [other for other in range(7) if found(store.boxes(image), block(other))] == [index]


def test_bytes_do_not_depend_on_workers(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposal_shards, "IMAGES_PER_SHARD", 3)
    for workers in (1, 2):
        make_proposals(wanted(images, tmp_path / str(workers), workers=workers))
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert [name for name in one if name.endswith(".parquet")] == [f"proposals-{n:05d}.parquet" for n in range(3)]
    assert one == two
    saved = yaml.safe_load((tmp_path / "2" / "settings.yaml").read_text())
    assert (saved["workers"], saved["mode"], saved["keep"], saved["seed"]) == (2, "fast", 50, 0)


def test_unreadable_images_are_skipped_counted_and_named(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["proposals", str(images), "--out", str(tmp_path / "out"), "--workers=1", "--max-unreadable=0.2"]) == 0
    output = capsys.readouterr().out
    assert "1 image skipped: a/cut.png (" in output
    assert "8 images" in output
    assert "1 with none" in output
    with (tmp_path / "out" / "skipped.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a/cut.png"]
    assert rows[0]["reason"]
    store = ProposalStore.open(tmp_path / "out")
    assert list(store.skipped) == ["a/cut.png"]
    assert store.boxes("flat.png").shape == (0, 4)
    assert (store.manifest.images, store.manifest.skipped, store.manifest.empty) == (9, 1, 1)
    store.require(["a/cut.png", "flat.png", "a/1.png"])


def test_flags_reach_the_search(images: Path, tmp_path: Path) -> None:
    arguments = ["proposals", str(images), "--workers=1", "--max-side=60", "--keep=2", "--seed=5"]
    arguments += ["--mode=quality", "--engine=opencv", "--max-unreadable=0.2"]
    assert main([*arguments, f"--out={tmp_path / 'out'}"]) == 0
    store = ProposalStore.open(tmp_path / "out")
    assert store.manifest.settings == {"mode": "quality", "max_side": 60, "keep": 2, "seed": 5}
    pixels = np.asarray(Image.open(images / "a/5.png").convert("RGB"))
    expected = propose(pixels, image_generator(5, "a/5.png"), "quality", 60, 2, "opencv")
    np.testing.assert_array_equal(store.boxes("a/5.png"), expected)


def test_the_engine_and_its_version_are_part_of_the_settings(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, _ = make_proposals(wanted(images, tmp_path / "out"))
    assert manifest.settings == {
        "engine": "fast",
        "engine_version": fast_search.VERSION,
        "mode": "fast",
        "max_side": None,
        "keep": 50,
        "seed": 0,
    }
    assert set(manifest.versions) == {"pillow", "numba", "opencv"}
    with pytest.raises(UserError, match=r"engine fast not opencv.*--overwrite"):
        make_proposals(wanted(images, tmp_path / "out", engine="opencv"))
    monkeypatch.setattr(fast_search, "VERSION", fast_search.VERSION + 1)
    with pytest.raises(UserError, match=f"engine_version {fast_search.VERSION - 1} not {fast_search.VERSION}"):
        make_proposals(wanted(images, tmp_path / "out"))


def test_proposals_made_before_there_were_engines_are_opencvs(
    images: Path, tmp_path: Path, searched: list[tuple[int, ...]]
) -> None:
    manifest, _ = make_proposals(wanted(images, tmp_path / "out", engine="opencv"))
    # The manifest's settings; their digest is also stored in the shards.
    assert manifest.settings == {"mode": "fast", "max_side": None, "keep": 50, "seed": 0}
    assert manifest.settings_digest == "33704e64950b6c0f810820c0d36eba04246a9869b2c9a5d1ed0017ec9f7443c1"
    before = contents(tmp_path / "out")
    searched.clear()
    make_proposals(wanted(images, tmp_path / "out", engine="opencv"))
    assert not searched
    assert contents(tmp_path / "out") == before
    with pytest.raises(UserError, match=r"engine opencv not fast.*--overwrite"):
        make_proposals(wanted(images, tmp_path / "out"))


def test_too_little_disk_space_is_a_warning_before_the_search(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ccop_pretrain.estimates.free_disk", lambda folder: 10_000)
    make_proposals(wanted(images, tmp_path / "out"))
    err = capsys.readouterr().err
    # Nine images, at most 50 boxes of 16 bytes each, twice.
    assert "warning: the search needs about 15.8 kB of disk space" in err
    assert err.index("warning") < err.index("selective search: 0 of 9")
    make_proposals(wanted(images, tmp_path / "few", keep=1))
    assert "warning" not in capsys.readouterr().err


def test_compiling_is_announced_once(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr(compilation, "is_compiled", lambda: bool(loaded))
    monkeypatch.setattr(compilation, "load_kernels", lambda: loaded.append(True))
    for overwrite in (False, True):
        make_proposals(wanted(images, tmp_path / "out", overwrite=overwrite))
    assert capsys.readouterr().err.count("compiling the search, once: about 30 s") == 1
    loaded.clear()
    make_proposals(wanted(images, tmp_path / "opencv", engine="opencv"))
    assert not loaded


def test_an_interrupted_run_goes_on(
    images: Path, tmp_path: Path, searched: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposal_shards, "IMAGES_PER_SHARD", 3)
    make_proposals(wanted(images, tmp_path / "whole"))
    settings = wanted(images, tmp_path / "out")
    searched.clear()
    spy = proposal_search.propose

    def interrupted(*arguments: Any) -> np.ndarray:
        if len(searched) == 5:
            raise KeyboardInterrupt
        return spy(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(proposal_search, "propose", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_proposals(settings)
    with pytest.raises(UserError, match="unfinished"):
        ProposalStore.open(settings.out)
    (settings.out / "proposals-00002.parquet.99.partial").write_bytes(b"half a shard")
    make_proposals(settings)
    assert len(searched) == 8  # every readable image once, over both runs
    assert contents(settings.out) == contents(tmp_path / "whole")


def test_a_second_run_searches_what_changed_anywhere_in_the_listing(
    images: Path, tmp_path: Path, searched: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposal_shards, "IMAGES_PER_SHARD", 3)
    settings = wanted(images, tmp_path / "out")
    make_proposals(settings)
    assert len(searched) == 8
    before = contents(settings.out)
    searched.clear()
    make_proposals(settings)
    assert searched == []
    assert contents(settings.out) == before
    write_image(images / "b/c/2.png", 3, (170, 120))  # changes the file size
    write_image(images / "a/00.png", 4, (180, 130))  # first in the listing: shifts every shard's boundaries
    (images / "a/3.png").unlink()
    make_proposals(settings)
    assert sorted(searched) == [(120, 170, 3), (130, 180, 3)]
    make_proposals(wanted(images, tmp_path / "whole"))
    assert contents(settings.out) == contents(tmp_path / "whole")
    assert found(ProposalStore.open(settings.out).boxes("b/c/2.png"), block(3))


def test_a_change_that_keeps_the_size_in_bytes_is_seen_and_a_new_time_stamp_alone_is_none(
    tmp_path: Path, searched: list[tuple[int, ...]]
) -> None:
    root = tmp_path / "images"
    root.mkdir()
    for index in range(3):
        write_image(root / f"{index}.bmp", index, (150, 110))
    settings = wanted(root, tmp_path / "out")
    make_proposals(settings)
    searched.clear()
    write_image(root / "1.bmp", 5, (150, 110))
    later = (root / "0.bmp").stat().st_mtime_ns + 10**10
    for name in ("0.bmp", "1.bmp"):
        os.utime(root / name, ns=(later, later))
    make_proposals(settings)
    assert len(searched) == 1
    assert found(ProposalStore.open(settings.out).boxes("1.bmp"), block(5))


def test_fewer_images_leave_no_shard_over(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposal_shards, "IMAGES_PER_SHARD", 2)
    settings = wanted(images, tmp_path / "out")
    make_proposals(settings)
    for name in ("a/cut.png", "a/1.png", "b/c/0.png", "b/c/2.png"):
        (images / name).unlink()
    make_proposals(settings)
    make_proposals(wanted(images, tmp_path / "whole"))
    assert contents(settings.out) == contents(tmp_path / "whole")
    assert len(contents(settings.out)) == 3 + 2


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_result_that_was_being_put_in_place_is_finished_by_the_next_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int, searched: list[tuple[int, ...]]
) -> None:
    monkeypatch.setattr(proposal_shards, "IMAGES_PER_SHARD", 3)
    settings = wanted(images, tmp_path / "out")
    make_proposals(settings)
    write_image(images / "a/00.png", 4, (180, 130))
    replace, moved = Path.replace, []

    def killed(path: Path, target: Path) -> Path:
        if path.parent.name == proposal_publication.STAGING and not path.name.endswith(".partial"):
            if len(moved) == moment:
                raise KeyboardInterrupt
            moved.append(path.name)
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            make_proposals(settings)
    assert len(moved) == moment
    with pytest.raises(UserError, match="unfinished"):
        ProposalStore.open(settings.out)
    searched.clear()
    make_proposals(settings)
    assert searched == []
    make_proposals(wanted(images, tmp_path / "whole"))
    assert contents(settings.out) == contents(tmp_path / "whole")


def test_many_machines_share_a_folder(images: Path, tmp_path: Path, searched: list[tuple[int, ...]]) -> None:
    settings = wanted(images, tmp_path / "out")
    parts = [search_share(open_source(images), settings, Share(number, 3)) for number in (3, 1, 2)]
    assert sum(made for made, _ in parts) == len(searched) == 8
    assert sum(len(skipped) for _, skipped in parts) == 1
    with pytest.raises(UserError, match="unfinished"):
        ProposalStore.open(settings.out)
    searched.clear()
    make_proposals(settings)
    assert searched == []
    make_proposals(wanted(images, tmp_path / "whole"))
    assert contents(settings.out) == contents(tmp_path / "whole")


def test_folders_of_machines_without_a_shared_one_are_merged(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], searched: list[tuple[int, ...]]
) -> None:
    base = ["proposals", str(images), "--workers=1", "--max-unreadable=1"]
    for number in (1, 2):
        assert main([*base, f"--out={tmp_path / str(number)}", f"--shard={number}/2"]) == 0
        assert f"part {number}/2 is searched" in capsys.readouterr().out
    searched.clear()
    assert main([*base, f"--out={tmp_path / 'out'}", "--merge", str(tmp_path / "1"), str(tmp_path / "2")]) == 0
    assert searched == []
    make_proposals(wanted(images, tmp_path / "whole"))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    with pytest.raises(UserError, match="no proposals to merge"):
        make_proposals(wanted(images, tmp_path / "out", merge=[images]))
    with pytest.raises(UserError, match="other settings"):
        make_proposals(wanted(images, tmp_path / "third", merge=[tmp_path / "1"], seed=4))
    for path in (tmp_path / "1").rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"none of the 1 files of proposals in {tmp_path / '1'} can be read"):
        make_proposals(wanted(images, tmp_path / "fourth", merge=[tmp_path / "2", tmp_path / "1"]))
    next((tmp_path / "2").rglob("*.parquet")).with_name("000009.parquet").write_bytes(b"")
    make_proposals(wanted(images, tmp_path / "fifth", merge=[tmp_path / "2"]))
    assert "1 of 2 files of proposals" in capsys.readouterr().err
    assert contents(tmp_path / "fifth") == contents(tmp_path / "whole")


def test_a_machine_goes_on_after_the_merge_has_tidied_up(images: Path, tmp_path: Path) -> None:
    settings = wanted(images, tmp_path / "out")
    source = open_source(images)
    make_proposals(settings, source)
    ledger = Ledger(source, settings.out, "other settings", 10**9)
    writer = PartWriter(ledger)
    remove_parts(settings.out)
    writer.add(0, ImageProposals(source.keys[0], 9, 9, np.zeros((0, 4), np.float32), 1, 1))
    writer.flush()
    assert ledger.file[0] == 0
    assert ledger.files[0].is_file()


SLOW_RUN = """
import sys, time
from pathlib import Path
from ccop_pretrain.proposals import ledger as proposal_ledger
from ccop_pretrain.proposals import run as proposals
from ccop_pretrain.proposals import search as proposal_search
from ccop_pretrain.settings import ProposalSettings
proposal_ledger.PART_IMAGES = 2
search = proposal_search.propose
def slowly(*arguments):
    print("searching", flush=True)
    time.sleep(0.02)
    return search(*arguments)
proposal_search.propose = slowly
proposals.make_proposals(ProposalSettings(Path(sys.argv[1]), Path(sys.argv[2]), workers=1, max_unreadable=1.0))
"""


def test_runs_killed_outright_lose_little_and_change_nothing(images: Path, tmp_path: Path) -> None:
    make_proposals(wanted(images, tmp_path / "whole"))
    command = [sys.executable, "-c", SLOW_RUN, str(images), str(tmp_path / "out")]
    searches = 0
    for limit in (3, 4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            for _ in range(limit):
                assert process.stdout.readline() == "searching\n"
                searches += 1
            process.kill()
            searches += process.stdout.read().count("searching")
    last = subprocess.run(command, capture_output=True, text=True, check=True)
    searches += last.stdout.count("searching")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    # Eight readable images; a kill loses the current image and the previous one, which is not yet written.
    assert 8 < searches <= 8 + 2 * 2


GROUP_RUN = """
import sys
from ccop_pretrain.cli import main
from ccop_hub.progress import Progress
from ccop_hub.locks import folder_lock
Progress.advance = lambda self: print("done", flush=True)
raise SystemExit(main(["proposals", sys.argv[1], "--out", sys.argv[2], "--workers", "2", "--max-unreadable", "1"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_loses_nothing(images: Path, tmp_path: Path, number: signal.Signals) -> None:
    for index in range(60):
        write_image(images / f"more-{index:02d}.png", index % 6, (420 + index, 320))
    out = tmp_path / "out"
    command = [sys.executable, "-c", GROUP_RUN, str(images), str(out)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "done\n"
        os.killpg(process.pid, number)
        output, errors = process.communicate()
    assert process.returncode == 128 + number, errors
    assert errors.splitlines()[-1] == f"ccop-pretrain: stopped by {number.name}"
    assert "Traceback" not in errors
    kept = sum(pq.read_metadata(path).num_rows for path in out.glob("parts/*/*.parquet"))
    skipped = 1  # the truncated image may be among those already processed
    assert 3 + output.count("done") - skipped <= kept < 68
    assert not list(out.rglob("*.partial"))
    assert not (out / ".lock").exists()
    settings = wanted(images, out)
    make_proposals(settings)
    make_proposals(wanted(images, tmp_path / "whole"))
    assert contents(out) == contents(tmp_path / "whole")


def test_a_second_writer_is_refused(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    arguments = ["proposals", str(images), "--out", str(tmp_path / "out"), "--workers=1", "--max-unreadable=1"]
    with folder_lock(tmp_path / "out"):
        assert main(arguments) == 2
        assert f"being written by process {os.getpid()}" in capsys.readouterr().err
        assert main([*arguments, "--shard=1/2"]) == 2
    with folder_lock(tmp_path / "out", shared=True):  # another machine's share is still being searched
        assert main([*arguments, "--shard=1/2"]) == 0
        assert main(arguments) == 2
    assert main(arguments) == 0


def test_boxes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_image(root / "0.png", 0, (150, 110))
    upright = Image.open(root / "0.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(root / "turned.png", exif=exif)
    make_proposals(wanted(root, tmp_path / "out"))
    store = ProposalStore.open(tmp_path / "out")
    assert store.size("turned.png") == (150, 110)
    assert found(store.boxes("turned.png"), block(0))


def test_odd_images_have_proposals(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_image(root / "plain.png", 0, (150, 110))
    plain = Image.open(root / "plain.png")
    plain.convert("L").save(root / "grey.png")
    plain.convert("CMYK").save(root / "print.tif")
    plain.convert("RGBA").save(root / "alpha.webp", lossless=True)
    Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257).save(root / "deep.tiff")
    plain.save(root / "moving.gif", save_all=True, append_images=[Image.new("RGB", plain.size)])
    Image.new("RGB", (1, 300)).save(root / "line.png")
    Image.new("1", (20_000, 20_000)).save(root / "vast.png")
    _, skipped = make_proposals(wanted(root, tmp_path / "out", max_unreadable=0.2))
    assert list(skipped.reasons()) == ["vast.png"]
    assert "20000 x 20000 pixels" in skipped.reasons()["vast.png"]
    store = ProposalStore.open(tmp_path / "out")
    assert [name for name in store.images if found(store.boxes(name), block(0))] == [
        "alpha.webp",
        "deep.tiff",
        "grey.png",
        "moving.gif",
        "plain.png",
        "print.tif",
    ]
    assert store.boxes("line.png").shape == (0, 4)


def test_more_pixels_than_the_limit_are_skipped_when_the_limit_is_lowered(
    images: Path, tmp_path: Path, searched: list[tuple[int, ...]]
) -> None:
    settings = wanted(images, tmp_path / "out")
    make_proposals(settings)
    searched.clear()
    _, skipped = make_proposals(dataclasses.replace(settings, max_pixels=100_000))
    assert list(skipped.reasons()) == ["a/cut.png", "b/c/0.png"]
    assert "b/c/0.png" not in ProposalStore.open(settings.out)
    make_proposals(settings)
    assert len(searched) == 1
    assert "b/c/0.png" in ProposalStore.open(settings.out)


def test_too_many_unreadable_images_stop_the_run(images: Path, tmp_path: Path, searched: list[Any]) -> None:
    settings = wanted(images, tmp_path / "out", max_unreadable=0.01)
    with pytest.raises(UserError, match=r"1 of 9 images cannot be used, more than the .* of 0\.01.*a/cut\.png"):
        make_proposals(settings)
    assert "a/cut.png" in (settings.out / "skipped.csv").read_text()
    with pytest.raises(UserError, match="unfinished"):
        ProposalStore.open(settings.out)
    make_proposals(dataclasses.replace(settings, max_unreadable=1 / 9))
    assert len(searched) == 8  # images finished before the stop are not searched again
    make_proposals(wanted(images, tmp_path / "whole"))
    assert contents(settings.out) == contents(tmp_path / "whole")


def test_proposals_of_other_settings_or_images_are_not_mixed(images: Path, tmp_path: Path) -> None:
    settings = wanted(images, tmp_path / "out", max_side=60)
    make_proposals(settings)
    before = contents(settings.out)
    with pytest.raises(UserError, match=r"other settings \(seed 0 not 1\); add --overwrite"):
        make_proposals(dataclasses.replace(settings, seed=1))
    write_image(tmp_path / "others" / "a" / "1.png", 2, (190, 130))
    others = dataclasses.replace(settings, images=tmp_path / "others")
    with pytest.raises(UserError, match="proposals for other images, none of which is among the 1 of 'others'"):
        make_proposals(others)
    assert contents(settings.out) == before
    make_proposals(dataclasses.replace(others, overwrite=True))
    assert ProposalStore.open(settings.out).images == ["a/1.png"]
    make_proposals(dataclasses.replace(others, seed=1, overwrite=True))
    assert ProposalStore.open(settings.out).manifest.settings["seed"] == 1


def test_a_start_that_found_nothing_does_not_block_other_settings(images: Path, tmp_path: Path) -> None:
    out, wrong = tmp_path / "out", tmp_path / "wrong.json"
    wrong.write_text("[]")
    with pytest.raises(UserError, match="not a COCO JSON"):
        make_proposals(wanted(images, out, from_coco=wrong))
    make_proposals(wanted(images, out, keep=7))
    assert ProposalStore.open(out).manifest.settings["keep"] == 7
    with pytest.raises(UserError, match="other settings"):
        make_proposals(wanted(images, out, keep=8))


def test_wrong_input_is_one_line(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    file = tmp_path / "file.txt"
    file.touch()
    junk = tmp_path / "junk"
    junk.mkdir()
    (junk / "text.jpg").write_text("no image")
    out = f"--out={tmp_path / 'out'}"
    cases = {
        (str(tmp_path / "empty"), out): "contains no image",
        (str(file), out): "lists no image",
        (str(tmp_path / "absent"), out): "does not exist",
        (str(images), out, "--keep=0"): "--keep 0 is not allowed",
        (str(images), out, "--max-side=0"): "--max-side 0 is not allowed",
        (str(images), out, "--workers=0"): "--workers 0 is not allowed",
        (str(images), f"--out={file}"): "is a file, but a folder is needed there",
        (str(junk), out, "--workers=1"): "1 of 1 images cannot be used",
        (str(junk), out, "--workers=1", "--max-unreadable=1"): "none of the images of 'junk' can be used",
        (str(images), out, "--shard=0/2"): "--shard 0/2 is not allowed: give I/N, with I from 1 to N",
        (str(images), out, "--shard=1/2", "--overwrite"): "--overwrite applies to the whole result",
        (str(images), out, "--shard=1/2", f"--from-coco={file}"): "--shard and --from-coco cannot be combined",
        (str(images), out, "--max-unreadable=2"): "--max-unreadable 2 is not allowed",
        (str(images), out, f"--ground-truth={file}"): "add --check",
        (str(images), f"--out={tmp_path / 'none'}", "--check"): "contains no proposals",
    }
    for arguments, message in cases.items():
        assert main(["proposals", *arguments]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ccop-pretrain:")]
        assert len(lines) == 1
        assert message in lines[0]


def test_its_own_output_and_runs_are_not_searched(images: Path, tmp_path: Path) -> None:
    out = images / "proposals"
    write_image(out / "stray.png", 1, (150, 110))
    write_image(images / "run" / "views.png", 1, (150, 110))
    for name in ("settings.yaml", "metrics.csv"):
        (images / "run" / name).touch()
    make_proposals(wanted(images, tmp_path / "elsewhere", max_unreadable=1.0))
    manifest, _ = make_proposals(wanted(images, out, max_unreadable=1.0))
    assert "proposals/stray.png" in ProposalStore.open(tmp_path / "elsewhere").images
    assert not [name for name in ProposalStore.open(out).images if name.startswith(("proposals", "run"))]
    again, _ = make_proposals(wanted(images, out, max_unreadable=1.0))
    assert again == manifest


def test_dangling_links_count_as_left_out(images: Path, tmp_path: Path) -> None:
    (images / "annexed.jpg").symlink_to("../annex/3f2a.jpg")
    with pytest.raises(UserError, match=r"max-unreadable"):
        make_proposals(wanted(images, tmp_path / "out", max_unreadable=0.0))
    _, skipped = make_proposals(wanted(images, tmp_path / "out", max_unreadable=1.0))
    assert skipped.reasons()["annexed.jpg"] == "a link to ../annex/3f2a.jpg, which does not exist"


def test_a_folder_whose_own_name_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "caf\udce9"
    try:
        write_image(root / "good.png", 1, (150, 110))
    except (OSError, UnicodeError):
        pytest.skip("this file system takes UTF-8 names alone")
    write_image(root / "bad\udce9.png", 2, (150, 110))
    monkeypatch.chdir(root)
    for _ in range(2):
        assert main(["proposals", ".", "--out", "out", "--workers", "1", "--max-unreadable", "0.5"]) == 0
        assert Manifest.read(root / "out").root == "caf\udce9"


def test_a_name_that_is_not_utf8_is_skipped(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_image(root / "good.png", 1, (150, 110))
    try:
        write_image(root / "caf\udce9.png", 1, (150, 110))
    except (OSError, UnicodeError):
        pytest.skip("this file system takes UTF-8 names alone")
    _, skipped = make_proposals(wanted(root, tmp_path / "out"))
    assert list(skipped.reasons().values()) == ["its name is not valid UTF-8"]
    assert ProposalStore.open(tmp_path / "out").images == ["good.png"]
    assert "caf\\udce9.png" in (tmp_path / "out" / "skipped.csv").read_text()
