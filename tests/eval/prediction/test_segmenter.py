import json
import os

import ccop_eval
import numpy as np
import pytest
from ccop_eval.cli import main
from ccop_eval.prediction.names import FileNames
from PIL import Image

from ccop_hub.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images that are dark on the left and bright on the right, with label ids 3 and 9."""
    root = tmp_path_factory.mktemp("halves")
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            ids = np.full((64, 64), 3, dtype=np.uint8)
            ids[:, 20 + 4 * number :] = 9
            noise = generator.integers(0, 60, (64, 64, 3))
            pixels = (np.where(ids == 3, 20, 180)[..., None] + noise).astype(np.uint8)
            for kind, array in (("images", pixels), ("labels", ids)):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / split / kind / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A short run that saves its own predictions of the validation images."""
    out = tmp_path_factory.mktemp("run") / "out"
    ccop_eval.segment(
        "random",
        data,
        out,
        backbone="resnet18",
        accelerator="cpu",
        workers=0,
        scale_to=(0, 0),
        crop_size=64,
        stride=0,
        iterations=6,
        batch_size=4,
        save_predictions=True,
    )
    return out


def test_the_label_images_are_those_of_the_run(data, trained, tmp_path):
    done = ccop_eval.predict(trained, data / "val" / "images", tmp_path / "out", accelerator="cpu")
    for name in ("0.png", "1.png"):
        found = np.asarray(Image.open(tmp_path / "out" / "labels" / f"{name}.png"))
        assert set(np.unique(found)) <= {3, 9}
        assert np.array_equal(found, np.asarray(Image.open(trained / "predictions" / name)))
        with Image.open(tmp_path / "out" / "pictures" / f"{name}.png") as picture:
            assert picture.width > 480
    assert (done.images, done.task, len(done.pictures)) == (2, "segmentation", 2)
    assert (tmp_path / "out" / "labels" / "classes.txt").read_text() == "3 class 3\n9 class 9\n"


def test_any_image_is_predicted_at_its_own_size(trained, tmp_path):
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    Image.new("RGB", (90, 50)).save(tmp_path / "photos" / "sub" / "a.jpg")
    Image.new("L", (40, 70)).save(tmp_path / "photos" / os.fsdecode(b"\xff.png"))
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of 3 images cannot be used.*broken\.png"):
        ccop_eval.predict(trained, tmp_path / "photos", tmp_path / "out")
    done = ccop_eval.predict(trained, tmp_path / "photos", tmp_path / "out", max_unreadable=0.5, pictures=False)
    assert (done.images, list(done.skipped), done.pictures) == (2, ["broken.png"], ())
    assert Image.open(tmp_path / "out" / "labels" / "sub" / "a.jpg.png").size == (90, 50)
    assert Image.open(tmp_path / "out" / "labels" / os.fsdecode(b"\xff.png.png")).size == (40, 70)
    assert not (tmp_path / "out" / "pictures").exists()


def test_the_command_prints_what_it_found(data, trained, tmp_path, capsys):
    words = ["predict", str(trained), "--images", str(data / "val" / "images"), "--out", str(tmp_path / "out")]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["task"], printed["images"], printed["pictures"]) == ("segmentation", 2, 2)
    assert main(words) == 2
    assert "labels exists: pass --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"no state"])
def test_a_run_that_cannot_predict_is_refused(trained, data, tmp_path, content, make_result):
    images = data / "val" / "images"
    run = tmp_path / "run"
    with pytest.raises(UserError, match="no run folder"):
        ccop_eval.predict(run, images, tmp_path / "out")
    run.mkdir()
    with pytest.raises(UserError, match=r"contains no result\.json: finish the run"):
        ccop_eval.predict(run, images, tmp_path / "out")
    make_result().write(run / "result.json")
    with pytest.raises(UserError, match="is a linear run"):
        ccop_eval.predict(run, images, tmp_path / "out")
    for name in ("result.json", "settings.yaml"):
        (run / name).write_bytes((trained / name).read_bytes())
    if content is not None:
        (run / "state.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"state\.ckpt"):
        ccop_eval.predict(run, images, tmp_path / "out")


def test_names_stay_in_the_folder_and_differ(tmp_path):
    names = FileNames(tmp_path)
    assert [names.of(key) for key in ("/a/b.png", "../../a/b.png", "a/b.png")] == ["a/b.png", "a/b.png-2", "a/b.png-3"]
