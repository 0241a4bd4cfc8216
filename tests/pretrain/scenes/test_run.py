import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ccop_pretrain.cli import main
from ccop_pretrain.scenes import run as scenes_run
from ccop_pretrain.scenes.run import make_scenes
from ccop_pretrain.settings import SceneSettings
from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.stopping import Stopped
from ccop_hub.synthetic.shapes import SHAPES

SIZE = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "set"
    assert make_scenes(SceneSettings(out, images=12, size=SIZE, seed=7, workers=2)).counts == {"train": 9, "val": 3}
    return out


def read(folder: Path, split: str) -> dict[str, Any]:
    return json.loads((folder / "annotations" / f"instances_{split}2017.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "settings.yaml")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files)}


@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_are_coco_s(folder: Path, split: str) -> None:
    COCO = pytest.importorskip("pycocotools.coco").COCO  # noqa: N806
    path = folder / "annotations" / f"instances_{split}2017.json"
    coco = COCO(str(path))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(SHAPES)
    for image in coco.loadImgs(coco.getImgIds()):
        with Image.open(folder / f"{split}2017" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
            assert picture.mode == "RGB"
        labels = np.asarray(Image.open(folder / "semantic" / f"{split}2017" / image["file_name"]))
        claimed = np.zeros(labels.shape, int)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            mask = coco.annToMask(annotation).astype(bool)
            claimed += mask
            assert annotation["iscrowd"] == 0
            assert annotation["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            x, y, width, height = annotation["bbox"]
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
            assert (labels[mask] == annotation["category_id"]).all()
        # Masks are the visible parts: no pixel belongs to two objects, and every labelled pixel to one.
        assert claimed.max() == 1
        np.testing.assert_array_equal(claimed == 1, (labels != 0) & (labels != 255))
    identifiers = [annotation["id"] for annotation in read(folder, split)["annotations"]]
    assert len(set(identifiers)) == len(identifiers) > 10


def test_info_says_what_it_is_and_its_licence(folder: Path) -> None:
    facts = read(folder, "train")
    assert "seed 7" in facts["info"]["contributor"]
    assert facts["licenses"][0]["name"].startswith("CC0")


def test_names_of_the_labels(folder: Path) -> None:
    assert (folder / "semantic" / "classes.txt").read_text().splitlines() == ["background", *SHAPES]


def test_crops_show_the_objects(folder: Path) -> None:
    for split in ("train", "val"):
        facts = read(folder, split)
        names = {category["id"]: category["name"] for category in facts["categories"]}
        expected = [names[annotation["category_id"]] for annotation in facts["annotations"]]
        crops = sorted((folder / "crops" / split).glob("*/*.png"))
        assert sorted(path.parent.name for path in crops) == sorted(expected)
        assert {path.name for path in (folder / "crops" / split).iterdir()} == set(SHAPES)
    annotation = facts["annotations"][0]
    image = next(image for image in facts["images"] if image["id"] == annotation["image_id"])
    stem = f"{Path(image['file_name']).stem}_{annotation['id'] % 100:02d}.png"
    crop = np.asarray(Image.open(folder / "crops" / "val" / names[annotation["category_id"]] / stem))
    picture = np.asarray(Image.open(folder / "val2017" / image["file_name"]))
    x, y, width, height = map(int, annotation["bbox"])
    margin = round(0.15 * max(width, height))
    rows = slice(max(y - margin, 0), y + height + margin)
    np.testing.assert_array_equal(crop, picture[rows, max(x - margin, 0) : x + width + margin])


def test_splits_share_no_image(folder: Path) -> None:
    pictures = {path.read_bytes() for path in folder.glob("*2017/*.png")}
    assert len(pictures) == 12


def test_an_image_depends_on_seed_split_and_number_alone(folder: Path, tmp_path: Path) -> None:
    whole = contents(folder)
    make_scenes(SceneSettings(tmp_path / "one", images=12, size=SIZE, seed=7, workers=1))
    assert contents(tmp_path / "one") == whole
    make_scenes(SceneSettings(tmp_path / "fewer", images=3, size=SIZE, seed=7, workers=1))
    fewer = {name: data for name, data in contents(tmp_path / "fewer").items() if name.endswith(".png")}
    assert fewer.items() <= whole.items()
    make_scenes(SceneSettings(tmp_path / "seed", images=2, size=SIZE, seed=8, workers=1))
    assert contents(tmp_path / "seed")["train2017/train_000001.png"] != whole["train2017/train_000001.png"]


def test_the_command_draws_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["scenes", "--images=3", "--size=96", "--val-share=0.4", "--workers=1", f"--out={tmp_path / 'set'}"]
    assert main(arguments) == 0
    assert "3 scenes (2 train, 1 val), 10 classes" in capsys.readouterr().out
    assert "images: 3" in (tmp_path / "set" / "settings.yaml").read_text()
    assert main(arguments) == 0
    assert "finished before" in capsys.readouterr().out
    assert main([*arguments, "--resume=false"]) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert main([*arguments, "--seed=1"]) == 2
    assert "seed (0 there, 1 now)" in capsys.readouterr().err


def test_an_unfinished_set_is_drawn_again(folder: Path, tmp_path: Path) -> None:
    settings = SceneSettings(tmp_path / "set", images=12, size=SIZE, seed=7, workers=1)
    make_scenes(settings)
    (settings.out / "annotations" / "instances_val2017.json").unlink()  # as after a kill
    (settings.out / "train2017" / "train_000001.png").unlink()
    assert make_scenes(settings).drawn
    assert contents(settings.out) == contents(folder)
    assert not make_scenes(settings).drawn


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_set_interrupted_before_its_first_image_is_drawn_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    settings = SceneSettings(tmp_path / "set", images=12, size=SIZE, seed=7, workers=1)
    if overwrite:
        shutil.copytree(folder, settings.out)

    def interrupted(out: Path) -> None:
        (out / "train2017").mkdir(exist_ok=True)
        raise Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(scenes_run, "_clear", interrupted)
        with pytest.raises(Stopped):
            make_scenes(dataclasses.replace(settings, overwrite=overwrite))
    assert make_scenes(settings).drawn
    assert contents(settings.out) == contents(folder)


def test_overwriting_leaves_other_files_alone(tmp_path: Path) -> None:
    settings = SceneSettings(tmp_path, images=4, size=96, workers=1)
    (tmp_path / "notes.txt").write_text("mine")
    make_scenes(settings)
    make_scenes(dataclasses.replace(settings, images=2, overwrite=True))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(list(tmp_path.glob("*2017/*.png"))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 1}, "--images 1 is not allowed"),
        ({"val_share": 1.0}, "--val-share 1.0 is not allowed"),
        ({"size": 8}, "--size 8 is not allowed"),
        ({"seed": -1}, "--seed -1 is not allowed"),
        ({"workers": 0}, "--workers 0 is not allowed"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_scenes(dataclasses.replace(SceneSettings(tmp_path / "set"), **change))
    assert not (tmp_path / "set").exists()
