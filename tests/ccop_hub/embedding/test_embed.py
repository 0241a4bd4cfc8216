import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

import ccop_hub
from ccop_hub.box_features import padded, pool_boxes, pyramid_features, stage_features
from ccop_hub.cli import main
from ccop_hub.embedding import output
from ccop_hub.embedding.output import RowTable, check_output, collecting, write_output
from ccop_hub.embedding.run import Embedded
from ccop_hub.errors import UserError
from ccop_hub.files import scratch_folder
from ccop_hub.frozen_network import FrozenNetwork
from ccop_hub.proposals.shards import ImageProposals, Manifest, notes_of, shard_path, write_shard
from ccop_hub.sources.resolve import resolve

SIZES = {"a.png": (90, 60), "b.png": (64, 64), "sub/c.png": (50, 80)}


def draw(path: Path, size: tuple[int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(seed).integers(0, 255, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
    Image.fromarray(rows).resize(size).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed, (name, size) in enumerate(SIZES.items()):
        draw(tmp_path / "photos" / name, size, seed)
    return tmp_path / "photos"


@pytest.fixture
def network(tiny_run: Path) -> FrozenNetwork:
    return FrozenNetwork(resolve(str(tiny_run)), ("backbone", "fpn"))


def embed(photos: Path, tiny_run: Path, out: Path, **settings: object) -> Embedded:
    return ccop_hub.embed(photos, str(tiny_run), out, **{"workers": 0, "image_size": 64, **settings})  # type: ignore[arg-type]


def short_side(path: Path, side: int) -> Image.Image:
    image = Image.open(path).convert("RGB")
    scale = side / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)


def test_a_row_is_the_pooled_feature_of_the_central_square(
    photos: Path, tiny_run: Path, network: FrozenNetwork, tmp_path: Path
) -> None:
    done = embed(photos, tiny_run, tmp_path / "f.npy")
    found = np.load(tmp_path / "f.npy")
    assert (done.rows, done.dimension, found.dtype) == (3, found.shape[1], np.float32)
    for row, (name, (width, height)) in zip(found, SIZES.items(), strict=True):
        side = min(width, height) * 224 / 256
        left, top = (width - side) / 2, (height - side) / 2
        image = Image.open(photos / name).convert("RGB")
        crop = image.resize((64, 64), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        expected = network.pooled(pil_to_tensor(crop)[None])[0]
        np.testing.assert_allclose(row, expected.numpy(), rtol=1e-4, atol=1e-5)
    with (tmp_path / "f.rows.csv").open(encoding="utf-8") as file:
        assert [row["image"] for row in csv.DictReader(file)] == list(SIZES)
    assert json.loads((tmp_path / "f.json").read_text())["weights"]["backbone"] == "test_resnet"


def test_the_file_is_the_same_for_any_number_of_workers(photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    embed(photos, tiny_run, tmp_path / "0.npy", features="p3", batch_size=2)
    embed(photos, tiny_run, tmp_path / "2.npy", features="p3", batch_size=2, workers=2)
    assert (tmp_path / "0.npy").read_bytes() == (tmp_path / "2.npy").read_bytes()


def test_whole_images_leave_out_the_padding(
    photos: Path, tiny_run: Path, network: FrozenNetwork, tmp_path: Path
) -> None:
    embed(photos, tiny_run, tmp_path / "f.npz", features="res3", resize="short-side")
    found = np.load(tmp_path / "f.npz")
    assert found["image"].tolist() == list(SIZES)
    image = short_side(photos / "a.png", 64)
    assert image.size == (96, 64)
    cells = network.stages(padded(pil_to_tensor(image)))["res3"]
    np.testing.assert_allclose(found["features"][0], cells[0, :, :8, :12].mean((1, 2)).numpy(), rtol=1e-4, atol=1e-5)


def coco(photos: Path) -> Path:
    images = [
        {"id": 7 + n, "file_name": name, "width": w, "height": h} for n, (name, (w, h)) in enumerate(SIZES.items())
    ]
    boxes = [
        {"id": 1, "image_id": 9, "category_id": 1, "bbox": [10, 20, 30, 40]},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [5, 5, 60, 50]},
        {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 20, 20], "iscrowd": 1},
        {"id": 4, "image_id": 7, "category_id": 1, "bbox": [80, 50, 40, 40]},
    ]
    path = photos.parent / "boxes.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": []}))
    return path


BOXES = {"a.png": [(5, 5, 65, 55), (80, 50, 90, 60)], "sub/c.png": [(10, 20, 40, 60)]}
"""The boxes of `coco`, without the crowd, clipped, in the order of the images."""


@pytest.mark.parametrize("level", ["pooled", "p3", "pyramid", "stages"])
def test_a_row_per_box_is_pooled_where_the_box_is(
    photos: Path, tiny_run: Path, network: FrozenNetwork, tmp_path: Path, level: str
) -> None:
    embed(photos, tiny_run, tmp_path / "f.parquet", features=level, boxes=coco(photos))
    table = pq.read_table(tmp_path / "f.parquet")
    assert table["image"].to_pylist() == ["a.png", "a.png", "sub/c.png"]
    corners = np.stack([table[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)
    np.testing.assert_allclose(corners, [box for boxes in BOXES.values() for box in boxes])
    rows = np.array(table["features"].to_pylist())
    expected = []
    for name, boxes in BOXES.items():
        image = short_side(photos / name, 64)
        factors = torch.tensor([image.width / SIZES[name][0], image.height / SIZES[name][1]] * 2)
        regions, pixels = torch.tensor(boxes) * factors, padded(pil_to_tensor(image))
        if level == "pyramid":
            expected.append(pyramid_features(network, pixels, regions))
        elif level == "stages":
            expected.append(stage_features(network, pixels, regions))
        elif level == "p3":
            expected.append(pool_boxes(network.pyramid(pixels)["p3"], regions, 8))
        else:
            expected.append(pool_boxes(network.stages(pixels)["res5"], regions, 32))
    np.testing.assert_allclose(rows, torch.cat(expected).numpy(), rtol=1e-4, atol=1e-5)
    assert json.loads(table.schema.metadata[b"ccop"])["boxes"].endswith("boxes.json")


def test_proposals_give_the_boxes(photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "proposals"
    folder.mkdir()
    rows = [
        ImageProposals(name, *size, np.array(BOXES.get(name, []), np.float32).reshape(-1, 4), 1, 0)
        for name, size in SIZES.items()
    ]
    write_shard(shard_path(folder, 0), rows, notes_of(rows, {}, "s"), 0)
    Manifest("photos", 3, "l", {}, "s", {}, boxes=3, empty=1, complete=True).write(folder)
    embed(photos, tiny_run, tmp_path / "p.npz", boxes=folder)
    embed(photos, tiny_run, tmp_path / "c.npz", boxes=coco(photos))
    one, other = np.load(tmp_path / "p.npz"), np.load(tmp_path / "c.npz")
    assert all(np.array_equal(one[name], other[name]) for name in ("features", "image", "x1", "y2"))


def test_a_coco_json_as_source_records_its_ids(photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    path = coco(photos)
    embed(path.rename(photos / "boxes.json"), tiny_run, tmp_path / "f.npz")
    assert np.load(tmp_path / "f.npz")["image_id"].tolist() == [7, 8, 9]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has only UTF-8 names")
@pytest.mark.parametrize("suffix", ["npy", "npz", "parquet"])
def test_names_that_are_not_utf8_are_escaped(photos: Path, tiny_run: Path, tmp_path: Path, suffix: str) -> None:
    (photos / "a.png").rename(os.fsdecode(os.fsencode(photos) + b"/\xff.png"))
    embed(photos, tiny_run, tmp_path / f"f.{suffix}")
    if suffix == "npy":
        names = [line.split(",")[0] for line in (tmp_path / "f.rows.csv").read_text().splitlines()[1:]]
    elif suffix == "npz":
        names = np.load(tmp_path / "f.npz")["image"].tolist()
    else:
        names = pq.read_table(tmp_path / "f.parquet")["image"].to_pylist()
    assert sorted(names) == ["\\xff.png", "b.png", "sub/c.png"]


def test_unreadable_images_are_left_out_and_counted(photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of 4 images cannot be used.*broken\.png"):
        embed(photos, tiny_run, tmp_path / "f.npz")
    assert list(tmp_path.iterdir()) == [photos]
    done = embed(photos, tiny_run, tmp_path / "f.npz", max_unreadable=0.5)
    assert (done.rows, done.images, list(done.skipped)) == (3, 4, ["broken.png"])
    assert np.load(tmp_path / "f.npz")["image"].tolist() == list(SIZES)


def test_a_missing_package_is_named_with_its_extra(
    photos: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"pyarrow.*pip install 'ccop-hub\[embed\]'"):
        embed(photos, tiny_run, tmp_path / "f.parquet")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"out": "f.csv"}, r"\.npy, \.npz, \.parquet"),
        ({"features": "pyramid"}, "--boxes"),
        ({"boxes": "boxes.json", "resize": "crop"}, "--resize short-side"),
        ({"boxes": "none.json"}, "none.json does not exist"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    photos: Path, tiny_run: Path, tmp_path: Path, settings: dict[str, str], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        embed(photos, tiny_run, **{"out": tmp_path / "f.npy", **settings})  # type: ignore[arg-type]


def test_an_earlier_file_is_kept_unless_told_otherwise(photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "f.rows.csv").write_text("mine")
    with pytest.raises(UserError, match=r"f\.rows\.csv exists: pass --overwrite"):
        embed(photos, tiny_run, tmp_path / "f.npy")
    embed(photos, tiny_run, tmp_path / "f.npy", overwrite=True)
    assert (tmp_path / "f.rows.csv").read_text().startswith("image\n")


def test_what_a_killed_command_left_is_not_an_earlier_file(tmp_path: Path) -> None:
    (tmp_path / "f.rows.csv").write_text("image")
    with pytest.raises(UserError, match=r"f\.rows\.csv exists: pass --overwrite"):
        check_output(tmp_path / "f.npy", overwrite=False)
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "f.npy"]) as killed:
        assert killed.wait() == -signal.SIGKILL
    check_output(tmp_path / "f.npy", overwrite=False)
    with scratch_folder(tmp_path / "f.npy"):  # of this process, which is alive: the files are its own
        (left,) = tmp_path.glob(".f.npy.*")
        assert f"-{os.getpid()}-" in left.name
        with pytest.raises(UserError, match="exists"):
            check_output(tmp_path / "f.npy", overwrite=False)


def test_a_failed_write_leaves_no_names_without_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "write_atomically", fail)
    with collecting(tmp_path / "f.npy") as features:
        features.append(np.zeros((1, 3), np.float32))
        with pytest.raises(KeyboardInterrupt):
            write_output(tmp_path / "f.npy", features, RowTable(images=["a"]), {})
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from ccop_hub.embedding.output import collecting
with collecting(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_command_prints_json_and_a_command_that_reads_the_file(
    photos: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["embed", str(photos), "--weights", str(tiny_run), "--workers", "0", "--image-size", "64", "--out"]
    assert main([*words, str(tmp_path / "f.npz"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["rows"], printed["images"], printed["skipped"]) == (3, 3, {})
    assert main([*words, str(tmp_path / "g.npz")]) == 0
    assert f".load(sys.argv[1]).items()}})' {tmp_path / 'g.npz'}" in capsys.readouterr().out
