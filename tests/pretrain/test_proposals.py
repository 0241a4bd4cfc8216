import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml
from ccop_pretrain import proposal_store, proposals
from ccop_pretrain.cli import main
from ccop_pretrain.data_settings import ProposalSettings
from ccop_pretrain.proposal_store import ProposalStore
from ccop_pretrain.proposals import make_proposals
from ccop_pretrain.selective_search import image_generator, propose
from PIL import Image

from ccop_hub.errors import UserError


def block(index: int) -> tuple[int, int, int, int]:
    """Where the one object of image `index` is: xyxy in pixels."""
    left, top = 10 + 12 * index, 8 + 5 * index
    return left, top, left + 40 + index, top + 44


def found(boxes: np.ndarray, expected: tuple[int, int, int, int]) -> bool:
    """Whether a box is there, up to the 4 pixels between the smoothed outlines that the random scores choose from."""
    return bool((np.abs(boxes - expected).max(axis=1) <= 4).any())


def write_image(path: Path, index: int, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), 40, np.uint8)
    left, top, right, bottom = block(index)
    pixels[top:bottom, left:right] = (200, 30 * index, 90)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Seven images, the first by far the largest (and so the last to be ready); one truncated, one without objects."""
    root = tmp_path / "images"
    for index in range(7):
        size = (560, 420) if index == 0 else (150 + index, 110)
        write_image(root / ("a" if index % 2 else "b/c") / f"{index}.png", index, size)
    cut = (root / "a" / "1.png").read_bytes()
    (root / "a" / "cut.png").write_bytes(cut[: len(cut) // 2])
    Image.new("RGB", (50, 12)).save(root / "flat.png")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "settings.yaml"}


def test_boxes_belong_to_their_image_with_many_workers(images: Path, tmp_path: Path) -> None:
    make_proposals(ProposalSettings(images, tmp_path / "out", workers=3))
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
    monkeypatch.setattr(proposal_store, "IMAGES_PER_SHARD", 3)
    for workers in (1, 2):
        make_proposals(ProposalSettings(images, tmp_path / str(workers), workers=workers))
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert [name for name in one if name.endswith(".parquet")] == [f"proposals-{n:05d}.parquet" for n in range(3)]
    assert one == two
    saved = yaml.safe_load((tmp_path / "2" / "settings.yaml").read_text())
    assert (saved["workers"], saved["mode"], saved["keep"], saved["seed"]) == (2, "fast", 50, 0)


def test_unreadable_images_are_skipped_counted_and_named(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["proposals", str(images), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
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
    arguments = ["proposals", str(images), "--workers=1", "--max-side=60", "--keep=2", "--seed=5", "--mode=quality"]
    assert main([*arguments, f"--out={tmp_path / 'out'}"]) == 0
    store = ProposalStore.open(tmp_path / "out")
    assert store.manifest.settings == {"mode": "quality", "max_side": 60, "keep": 2, "seed": 5}
    pixels = np.asarray(Image.open(images / "a/5.png").convert("RGB"))
    expected = propose(pixels, image_generator(5, "a/5.png"), "quality", 60, 2)
    np.testing.assert_array_equal(store.boxes("a/5.png"), expected)


def test_an_interrupted_run_goes_on(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposal_store, "IMAGES_PER_SHARD", 3)
    make_proposals(ProposalSettings(images, tmp_path / "whole", workers=1))
    settings = ProposalSettings(images, tmp_path / "out", workers=1)
    searched: list[tuple[int, ...]] = []
    limit = 5

    def limited(pixels: np.ndarray, *arguments: object) -> np.ndarray:
        if len(searched) == limit:
            raise KeyboardInterrupt
        searched.append(pixels.shape)
        return propose(pixels, *arguments)

    monkeypatch.setattr(proposals, "propose", limited)
    with pytest.raises(KeyboardInterrupt):
        make_proposals(settings)
    with pytest.raises(UserError, match="unfinished"):
        ProposalStore.open(settings.out)
    (settings.out / "proposals-00002.parquet.partial").write_bytes(b"half a shard")
    searched.clear()
    limit = 99
    make_proposals(settings)
    # The five searches filled two shards of three (one of those six images cannot be read): the third is left.
    assert len(searched) == 3
    assert contents(settings.out) == contents(tmp_path / "whole")


def test_a_second_run_redoes_what_changed(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposal_store, "IMAGES_PER_SHARD", 3)
    settings = ProposalSettings(images, tmp_path / "out", workers=1)
    make_proposals(settings)
    written: list[str] = []
    original = proposals.write_shard

    def spy(path: Path, *arguments: object) -> object:
        written.append(path.name)
        return original(path, *arguments)

    monkeypatch.setattr(proposals, "write_shard", spy)
    make_proposals(settings)
    assert written == []
    write_image(images / "b/c/6.png", 3, (170, 120))
    make_proposals(settings)
    assert written == ["proposals-00002.parquet"]
    assert found(ProposalStore.open(settings.out).boxes("b/c/6.png"), block(3))


def test_proposals_of_other_settings_or_images_are_not_mixed(images: Path, tmp_path: Path) -> None:
    settings = ProposalSettings(images, tmp_path / "out", workers=1, max_side=60)
    make_proposals(settings)
    before = contents(settings.out)
    with pytest.raises(UserError, match=r"other settings \(seed 0 not 1\); add --overwrite"):
        make_proposals(dataclasses.replace(settings, seed=1))
    write_image(images / "new.png", 2, (150, 110))
    with pytest.raises(UserError, match=r"other images \(9 of 'images', not the 10 of 'images'\); add --overwrite"):
        make_proposals(settings)
    assert contents(settings.out) == before
    make_proposals(dataclasses.replace(settings, seed=1, overwrite=True))
    assert ProposalStore.open(settings.out).manifest.settings["seed"] == 1
    assert "new.png" in ProposalStore.open(settings.out)


def test_wrong_input_is_one_line(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    file = tmp_path / "file.txt"
    file.touch()
    junk = tmp_path / "junk"
    junk.mkdir()
    (junk / "text.jpg").write_text("no image")
    out = f"--out={tmp_path / 'out'}"
    cases = {
        (str(tmp_path / "empty"), out): "holds no image",
        (str(file), out): "is a file, not a folder of images",
        (str(tmp_path / "absent"), out): "does not exist",
        (str(images), out, "--keep=0"): "--keep is 0",
        (str(images), out, "--max-side=0"): "--max-side is 0",
        (str(images), out, "--workers=0"): "--workers is 0",
        (str(images), f"--out={file}"): "is a file; give a folder",
        (str(junk), out, "--workers=1"): "not one of the 1 images",
    }
    for arguments, message in cases.items():
        assert main(["proposals", *arguments]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ccop-pretrain:")]
        assert len(lines) == 1
        assert message in lines[0]


def test_a_name_that_is_not_utf8_is_skipped(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_image(root / "good.png", 1, (150, 110))
    try:
        write_image(root / "caf\udce9.png", 1, (150, 110))
    except (OSError, UnicodeError):
        pytest.skip("this file system takes UTF-8 names alone")
    _, skipped = make_proposals(ProposalSettings(root, tmp_path / "out", workers=1))
    assert list(skipped.reasons().values()) == ["its name is not valid UTF-8"]
    assert ProposalStore.open(tmp_path / "out").images == ["good.png"]
    assert "caf\\udce9.png" in (tmp_path / "out" / "skipped.csv").read_text()
