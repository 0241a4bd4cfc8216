import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, drawn_scenes):
    """Two folders of synthetic images with the classes ground and object; `shuffled` swaps the labels."""
    root = tmp_path_factory.mktemp("scenes")
    for split in ("train", "val"):
        labels = sorted((drawn_scenes / "semantic" / f"{split}2017").iterdir())
        for number, file in enumerate(labels):
            image = Image.open(next((drawn_scenes / f"{split}2017").glob(f"{file.stem}.*")))
            own, other = (Image.open(path) for path in (file, labels[number - 1]))
            for name, label in (("learnable", own), ("shuffled", other.resize(own.size, Image.Resampling.NEAREST))):
                ids = np.array(label)
                ids[(ids > 0) & (ids < 255)] = 1
                for kind, picture in (("images", image), ("labels", Image.fromarray(ids))):
                    folder = root / name / split / kind
                    folder.mkdir(parents=True, exist_ok=True)
                    picture.save(folder / f"{number:03d}.png")
    for name in ("learnable", "shuffled"):
        (root / name / "classes.txt").write_text("ground\nobject\n")
    return root


CITY_SIZE = (64, 128)


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    """A folder in Cityscapes' layout with blocks of many label ids, some of them ignored."""
    root = tmp_path_factory.mktemp("cityscapes")
    generator = np.random.default_rng(5)
    for split, count in (("train", 4), ("val", 3)):
        for number in range(count):
            blocks = generator.choice([0, 1, 4, 7, 8, 11, 17, 19, 21, 23, 24, 26, 33], (8, 16)).astype(np.uint8)
            label = np.kron(blocks, np.ones((8, 8), dtype=np.uint8))
            pixels = (label[..., None] * np.array([7, 3, 5]) % 256).astype(np.uint8)
            name = f"ulm_{number:06d}_000019"
            for kind, suffix, array in (("leftImg8bit", "leftImg8bit", pixels), ("gtFine", "gtFine_labelIds", label)):
                folder = root / kind / split / "ulm"
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / f"{name}_{suffix}.png")
    return root
