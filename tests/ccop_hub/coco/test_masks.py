from typing import Any

import numpy as np
import pytest
from pycocotools import mask as reference

from ccop_hub.coco.findings import Kind
from ccop_hub.coco.masks import decode_counts, from_pixels, mask_area, read_mask, to_pixels
from ccop_hub.coco.values import WrongValueError

SIZE = (16, 12)
BOX = (1.0, 2.0, 5.0, 4.0)
TRIANGLE = [1, 2, 6, 2, 6, 6]


def random_pixels(seed: int, width: int = 16, height: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < 0.4


def rectangle(x: int, y: int, width: int, height: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    pixels = np.zeros(size[::-1], dtype=bool)
    pixels[y : y + height, x : x + width] = True
    return pixels


@pytest.mark.parametrize(
    ("given", "expected", "kinds"),
    [
        ([TRIANGLE], [TRIANGLE], []),
        (TRIANGLE, [TRIANGLE], [Kind.FLAT_POLYGON]),
        ([[1, 2], [6, 2], [6, 6]], [TRIANGLE], [Kind.FLAT_POLYGON]),
        ([[[1, 2], [6, 2], [6, 6]]], [TRIANGLE], [Kind.FLAT_POLYGON]),
        ([["1", 2, 6, "2", 6, 6]], [TRIANGLE], [Kind.TEXT_NUMBER]),
        ([TRIANGLE, [1, 2, 3, 4]], [TRIANGLE], [Kind.BAD_POLYGON]),
        ([[1, 2, 3], TRIANGLE, [1, 2, 3, 4, 5, 6, 7]], [TRIANGLE], [Kind.BAD_POLYGON] * 2),
        ([[1, 2, 3, 4]], None, [Kind.BAD_POLYGON]),
        ([TRIANGLE, []], [TRIANGLE], []),
        ([[]], None, []),
        ([], None, []),
        (None, None, []),
        ({}, None, []),
        ([[-10, 2, 6, 2, 6, 6, -10, 6]], [[0, 2, 6, 2, 6, 6, 0, 6]], [Kind.POLYGON_CLIPPED]),
        ([[-10, 2, -6, 2, -6, 6]], None, [Kind.POLYGON_CLIPPED]),
        ([[1, 2, 16.5, 2, 6, 12.9]], [[1, 2, 16.5, 2, 6, 12.9]], []),
    ],
)
def test_polygons(given: Any, expected: Any, kinds: list[Kind]) -> None:
    met: list[Kind] = []
    found = read_mask(given, SIZE, BOX, met)
    if expected is not None and Kind.POLYGON_CLIPPED in kinds:
        assert isinstance(found, list)
        points = [sorted(zip(part[::2], part[1::2], strict=True)) for part in found]
        assert points == [sorted(zip(part[::2], part[1::2], strict=True)) for part in expected]
    else:
        assert found == expected
    assert met == kinds


@pytest.mark.parametrize(
    "given",
    [
        "text",
        5,
        True,
        [TRIANGLE, "a"],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1, 2, 3, 4, 5, float("inf")]],
        [["a", 2, 3, 4, 5, 6]],
        [[[[1, 2]]]],
        [[None, 1, 2, 3, 4, 5]],
    ],
)
def test_what_is_no_mask_is_refused(given: Any) -> None:
    with pytest.raises(WrongValueError):
        read_mask(given, SIZE, BOX, [])


def test_the_area_of_polygons_is_the_sum_of_theirs() -> None:
    assert mask_area([[0, 0, 4, 0, 4, 3, 0, 3], [10, 10, 12, 10, 10, 12]]) == 12 + 2


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths_are_pycocotools(seed: int) -> None:
    pixels = random_pixels(seed, 33, 47) if seed else np.zeros((47, 33), dtype=bool)
    theirs = reference.encode(np.asfortranarray(pixels.astype(np.uint8)))
    text = theirs["counts"].decode()
    ours = from_pixels(pixels)
    assert decode_counts(text) == ours["counts"]
    assert reference.frPyObjects(ours, 47, 33)["counts"] == theirs["counts"]
    assert (to_pixels(ours) == pixels).all()
    assert mask_area(ours) == mask_area({"size": [47, 33], "counts": text}) == pixels.sum()


def forms(pixels: np.ndarray) -> dict[str, Any]:
    counts = from_pixels(pixels)["counts"]
    text = reference.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"]
    height, width = pixels.shape
    return {
        "list": {"size": [height, width], "counts": counts},
        "text": {"size": [height, width], "counts": text.decode()},
        "bytes": {"size": [height, width], "counts": repr(text)},
        "numbers as text": {"size": [str(height), width], "counts": [str(count) for count in counts]},
        "floats": {"size": [float(height), width], "counts": [float(count) for count in counts]},
        "no size": {"counts": counts},
        "swapped size": {"size": [width, height], "counts": counts},
        "in a list": [{"size": [height, width], "counts": counts}],
    }


@pytest.mark.parametrize("form", list(forms(rectangle(1, 2, 5, 4))))
def test_every_form_of_run_lengths_is_read(form: str) -> None:
    pixels = rectangle(1, 2, 5, 4)
    met: list[Kind] = []
    found = read_mask(forms(pixels)[form], SIZE, BOX, met)
    assert isinstance(found, dict)
    assert (to_pixels(found) == pixels).all()
    theirs = reference.frPyObjects(found, *found["size"]) if isinstance(found["counts"], list) else found
    assert (reference.decode(theirs).astype(bool) == pixels).all()
    assert bool(met) == (form not in ("list", "text"))


@pytest.mark.parametrize(
    "given",
    [
        {"size": [12, 16], "counts": [10, 5]},
        {"size": [12, 16], "counts": []},
        {"size": [12, 16], "counts": [200, -8]},
        {"size": [12, 16], "counts": "\x7f"},
        {"size": [12, 16], "counts": "P"},
        {"size": [12, 16], "counts": None},
        {"size": [12, 16]},
        {"size": [24, 8], "counts": [100, 92]},
    ],
)
def test_run_lengths_that_do_not_fill_the_image_are_no_mask(given: Any) -> None:
    met: list[Kind] = []
    assert read_mask(given, SIZE, BOX, met) is None
    assert met == [Kind.BAD_MASK]
