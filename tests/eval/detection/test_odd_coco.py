"""A data set with every oddity at once gives the same results as a clean one."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ccop_eval.cli import main
from ccop_eval.detection.coco_data import open_coco
from ccop_eval.region_probe.coco_boxes import read_splits
from ccop_eval.results.result import Result
from PIL import Image

from ccop_hub.coco.masks import from_pixels

Draw = Callable[..., Path]
Document = dict[str, Any]


def _split(root: Path, split: str) -> tuple[Path, Document]:
    path = root / "annotations" / f"instances_{split}2017.json"
    return path, json.loads(path.read_text())


def _round(document: Document) -> None:
    """Whole pixels, polygon areas and an RLE mask: what normalising the odd data set must produce."""
    for entry in document["annotations"]:
        polygon = [float(round(value)) for value in entry["segmentation"][0]]
        xs, ys = np.array(polygon[::2]), np.array(polygon[1::2])
        box = [xs.min(), ys.min(), xs.max() - xs.min(), ys.max() - ys.min()]
        entry["area"] = float(abs(np.dot(xs, np.roll(ys, -1)) - np.dot(np.roll(xs, -1), ys)) / 2)
        entry |= {"segmentation": [polygon], "bbox": [float(value) for value in box]}
    pixels = np.zeros((128, 128), dtype=bool)
    x, y, width, height = (int(value) for value in document["annotations"][-1]["bbox"])
    pixels[y : y + height, x : x + width] = True
    document["annotations"][-1]["segmentation"] = from_pixels(pixels)
    for entry in document["categories"]:
        entry["supercategory"] = "shapes"


def _spoil(document: Document, root: Path, split: str) -> None:
    """Every oddity that can be fixed without changing the content."""
    entries, images = document["annotations"], document["images"]
    first, second, third = entries[:3]
    del first["iscrowd"], second["area"]
    first["bbox"] = [str(value) for value in first["bbox"]]
    first["segmentation"] = first["segmentation"][0]
    second["iscrowd"] = "0"
    second["segmentation"].append([1.0, 2.0, 3.0])
    third |= {"area": None, "iscrowd": False, "image_id": str(third["image_id"])}
    x, y, width, height = third["bbox"]
    third["bbox"] = [x + width, y + height, -width, -height]
    third["segmentation"] = [list(map(list, zip(*[iter(third["segmentation"][0])] * 2, strict=True)))]
    entries[-1]["segmentation"]["counts"] = [str(count) for count in entries[-1]["segmentation"]["counts"]]
    entries.append(copy.deepcopy(entries[4]))
    for number, change in enumerate(
        (
            {"bbox": [3, 3, 0, 5]},
            {"bbox": [500, 3, 9, 5]},
            {"image_id": 999},
            {"category_id": 999},
            {"segmentation": []},
            {"segmentation": [[1, 2, 3, 4]]},
            {"segmentation": {"size": [5, 5], "counts": [25]}},
        )
    ):
        entries.append({**copy.deepcopy(entries[4]), "id": 900 + number, **change})
    images[0] |= {"file_name": f"C:\\data\\{images[0]['file_name']}", "width": None}
    images[1] |= {"file_name": f"{split}2017/{images[1]['file_name']}", "height": str(images[1]["height"])}
    images.append(copy.deepcopy(images[0]))
    document["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})
    del document["categories"][1]["supercategory"]
    document |= {"extra": {"a": [1]}, "licenses": None}


@pytest.fixture
def twins(draw: Draw, tmp_path: Path) -> tuple[Path, Path]:
    """The clean and the odd data set, which have the same images except the third of each split.

    In the odd set, that image is stored sideways, with an EXIF orientation that corrects it.
    """
    clean = draw(tmp_path / "clean", train=4, val=4)
    odd = tmp_path / "odd"
    for split in ("train", "val"):
        path, document = _split(clean, split)
        _round(document)
        path.write_text(json.dumps(document))
        stored = clean / f"{split}2017" / "000003.png"
        with Image.open(stored) as image:
            image.resize((96, 128)).save(stored)
        size = {"width": 96, "height": 128}
        document["images"][2] |= size
        document["annotations"] = [
            entry
            for entry in document["annotations"]
            if entry["image_id"] != 3 or entry["bbox"][0] + entry["bbox"][2] <= 96
        ]
        path.write_text(json.dumps(document))
    shutil.copytree(clean, odd)
    for split in ("train", "val"):
        path, document = _split(odd, split)
        _spoil(document, odd, split)
        stored = odd / f"{split}2017" / "000003.png"
        with Image.open(stored) as image:
            turned = image.transpose(Image.Transpose.ROTATE_90)
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(stored, exif=exif)
        document["images"][2] |= {"width": 128, "height": 96}
        for entry in document["annotations"]:
            if entry["image_id"] == 3:
                x, y, width, height = entry["bbox"]
                entry["bbox"] = [y, 96 - x - width, height, width]
                mask = entry["segmentation"]
                if isinstance(mask, list) and mask and isinstance(mask[0], list):
                    entry["segmentation"] = [
                        [value for x, y in zip(part[::2], part[1::2], strict=True) for value in (y, 96 - x)]
                        for part in mask
                    ]
        path.write_bytes(json.dumps(document).encode("utf-16" if split == "train" else "utf-8-sig"))
    return clean, odd


def test_the_normalised_copies_are_equal(twins: tuple[Path, Path]) -> None:
    clean, odd = (open_coco(root) for root in twins)
    assert clean.notes == ()
    assert len(odd.notes) == 2
    assert clean.masks == odd.masks == "bitmask"
    for split in ("train", "val"):
        ours, theirs = (json.loads(getattr(data, split).annotations.read_text()) for data in (odd, clean))
        assert ours == theirs


def test_the_region_probe_reads_equal_boxes(twins: tuple[Path, Path]) -> None:
    for clean, odd in zip(*(read_splits(root) for root in twins), strict=True):
        assert (clean.note, bool(odd.note)) == ("", True)
        assert clean.classes == odd.classes
        assert [path.name for path in clean.paths] == [path.name for path in odd.paths]
        # Objects with only a bad mask count as boxes.
        for boxes, theirs in zip(odd.boxes, clean.boxes, strict=True):
            assert {tuple(box) for box in boxes.tolist()} == {tuple(box) for box in theirs.tolist()}
        assert sum(odd.counts) == sum(clean.counts) + 3


def test_detection_measures_the_same(twins: tuple[Path, Path], tmp_path: Path) -> None:
    flags = ["--weights=random", "--backbone=resnet18", "--protocol=small-cpu", "--iterations=2", "--workers=0"]
    results = []
    for root in twins:
        out = tmp_path / "out" / root.name
        assert main(["detection", *flags, "--batch-size=2", f"--data={root}", f"--out={out}"]) == 0
        results.append(Result.read(out))
    clean, odd = results
    assert odd.metrics == clean.metrics
    assert odd.curve == clean.curve
    assert odd.data.digest != clean.data.digest
    assert [note for note in odd.notes if note not in clean.notes] == list(open_coco(twins[1]).notes)
