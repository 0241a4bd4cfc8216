"""A small synthetic data set in COCO's layout: rectangles, ellipses and triangles on noise; shapes are classes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

CLASSES = {7: "ellipse", 3: "rectangle", 90: "triangle"}
"""Category ids that are neither sorted nor contiguous, as in some data sets."""


def _outline(kind: str, x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    if kind == "rectangle":
        return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    if kind == "triangle":
        return [(x + width / 2, y), (x + width, y + height), (x, y + height)]
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return [(x + width * (1 + np.cos(a)) / 2, y + height * (1 + np.sin(a)) / 2) for a in angles]


def _area(outline: list[tuple[float, float]]) -> float:
    xs, ys = np.array(outline).T
    return float(abs(np.dot(xs, np.roll(ys, 1)) - np.dot(ys, np.roll(xs, 1))) / 2)


def _draw_split(root: Path, split: str, images: int, seed: int, size: int = 128) -> None:
    """Write `images` images of size x size pixels with two or three shapes each, and their instance JSON."""
    random = np.random.default_rng(seed)
    folder = root / f"{split}2017"
    folder.mkdir(parents=True)
    listed, annotations = [], []
    for number in range(1, images + 1):
        noise = random.integers(60, 120, (size // 8, size // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((size, size))
        draw = ImageDraw.Draw(picture)
        for _ in range(random.integers(2, 4)):
            category = int(random.choice(list(CLASSES)))
            width, height = random.uniform(size / 5, size / 2.2, 2)
            x, y = random.uniform(0, size - width), random.uniform(0, size - height)
            outline = _outline(CLASSES[category], x, y, width, height)
            draw.polygon(outline, fill=tuple(int(value) for value in random.integers(0, 255, 3)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [x, y, width, height],
                    "area": _area(outline),
                    "iscrowd": 0,
                    "segmentation": [[float(value) for point in outline for value in point]],
                }
            )
        picture.save(folder / f"{number:06d}.png")
        listed.append({"id": number, "file_name": f"{number:06d}.png", "width": size, "height": size})
    document = {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in CLASSES.items()],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document))


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Isolate the tests from the user's cache; a module may override this with a cache per test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def draw_split() -> Callable[..., None]:
    """`draw_split(root, "train", images=8, seed=0)` adds a split to `root`."""
    return _draw_split


@pytest.fixture
def draw() -> Callable[..., Path]:
    """`draw(root, train=8, val=4)` writes both splits to `root` and returns it."""

    def both(root: Path, train: int = 8, val: int = 4, seed: int = 0) -> Path:
        _draw_split(root, "train", train, seed)
        _draw_split(root, "val", val, seed + 1)
        return root

    return both


VOC_OBJECTS = {
    "000001": [("dog", 0, (1, 1, 64, 48)), ("cat", 1, (11, 21, 30, 40))],
    "2008_000002": [("person", 0, (5, 6, 20, 30))],
    "000003": [("tvmonitor", 0, (2, 3, 33, 44))],
}


def _write_voc(root: Path) -> Path:
    """Three images of 64 x 48 pixels: 2007 trainval, 2012 trainval, 2007 test."""
    for year, image_set, name in (
        ("VOC2007", "trainval", "000001"),
        ("VOC2012", "trainval", "2008_000002"),
        ("VOC2007", "test", "000003"),
    ):
        folder = root / year
        for kind in ("ImageSets/Main", "Annotations", "JPEGImages"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / "ImageSets" / "Main" / f"{image_set}.txt").write_text(f"{name}\n")
        Image.new("RGB", (64, 48)).save(folder / "JPEGImages" / f"{name}.jpg")
        objects = "".join(
            f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
            f"<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>"
            "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
            "</object>"
            for kind, difficult, box in VOC_OBJECTS[name]
        )
        size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
        (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return root


@pytest.fixture
def write_voc() -> Callable[[Path], Path]:
    """`write_voc(root)` writes a tiny VOC07+12 to `root` and returns it."""
    return _write_voc
