import pickle
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

import ccop_hub
from ccop_hub.errors import UserError
from ccop_hub.image_sources.source import open_source
from ccop_hub.images import UnreadableImageError


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the splits `train` (3 images, one of them missing) and `test` (1 image)."""
    root = tmp_path_factory.mktemp("datasets")
    files = []
    for number in range(3):
        pixels = np.full((20, 30 + number, 3), 40 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        files.append(str(root / f"{number}.png"))
    datasets.disable_progress_bars()
    kind = datasets.Features({"label": datasets.Value("int64"), "image": datasets.Image()})
    train = datasets.Dataset.from_dict({"label": [0, 1, 2], "image": [files[0], None, files[2]]}, features=kind)
    test = datasets.Dataset.from_dict({"label": [1], "image": files[1:2]}, features=kind)
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(root / "both")
    train.save_to_disk(root / "one")
    train.remove_columns("image").save_to_disk(root / "labels")
    return root


def test_rows_are_images_in_their_order(saved: Path) -> None:
    source = open_source(saved / "both")
    assert list(source.keys) == ["train/000000000", "train/000000001", "train/000000002"]
    assert source[2].read().size == (32, 20)
    assert np.asarray(source[2].read()).max() == 80
    with pytest.raises(UnreadableImageError, match="the row has no image"):
        source[1].read()
    size, modified = source[0].state()
    assert size == len(source[0].read_bytes()) > 0
    assert modified > 0
    assert source[1].state() == (-1, 0)
    assert pickle.loads(pickle.dumps(source[2])).read().size == (32, 20)


@pytest.mark.parametrize(("name", "images"), [("both:test", 1), ("one", 3), ("both:train", 3)])
def test_a_split_can_be_named(saved: Path, name: str, images: int) -> None:
    assert len(open_source(saved / name)) == images


def test_mistakes_are_one_line(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no split 'val': use one of train, test"):
        open_source(saved / "both:val")
    with pytest.raises(UserError, match="no column of images, only label"):
        open_source(saved / "labels")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hf:/+org/none cannot be opened"):
        open_source(Path("hf://org/none"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'ccop-hub\[datasets\]'"):
        open_source(saved / "one")


def test_images_of_a_data_set_are_embedded(saved: Path, tiny_run: Path, tmp_path: Path) -> None:
    options = {"workers": 0, "image_size": 32, "max_unreadable": 0.5}
    done = ccop_hub.embed(saved / "one", str(tiny_run), tmp_path / "f.npz", **options)
    assert (done.rows, list(done.skipped)) == (2, ["train/000000001"])
