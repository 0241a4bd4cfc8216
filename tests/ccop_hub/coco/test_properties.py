"""For arbitrarily odd documents, pycocotools accepts the normalised copy, or the error is one line."""

import contextlib
import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ccop_hub.coco.normalised import normalise
from ccop_hub.errors import UserError

WIDTH, HEIGHT = 16, 12
RUN_LENGTHS = {"size": [HEIGHT, WIDTH], "counts": [20, 5, 7, 5, 155]}


def _document() -> dict[str, Any]:
    boxes = [[1, 1, 5, 4], [2.5, 3, 8, 6], [0, 0, 16, 12], [1, 8, 2, 3]]
    masks: list[Any] = [[[1, 1, 6, 1, 6, 5, 1, 5]], [[3, 3, 10, 3, 10, 9]], RUN_LENGTHS, [[1, 8, 3, 8, 3, 11, 1, 11]]]
    return {
        "images": [{"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} for number in (1, 2)],
        "annotations": [
            {
                "id": number,
                "image_id": 1 + number % 2,
                "category_id": 3 + number % 2,
                "bbox": box,
                "area": 10.0,
                "iscrowd": 0,
                "segmentation": mask,
            }
            for number, (box, mask) in enumerate(zip(boxes, masks, strict=True), start=1)
        ],
        "categories": [{"id": 3, "name": "cat", "supercategory": "x"}, {"id": 4, "name": "dog"}],
    }


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _places(inner, (*path, place))


PLACES = [path for path in _places(_document()) if path]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.integers(),
    st.floats(),
    st.floats(-50, 50),
    st.sampled_from(
        ["0", "1", "", "true", "7", "1e3", "nan", "a.png", "train/1.png", "..\\2.png", "%31.png", "\ud800", "\0"]
    ),
    st.text(max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.lists(st.floats(-100, 100) | st.integers(-5, 30), min_size=2, max_size=9),
        st.dictionaries(st.sampled_from(["size", "counts", "id", "x"]), inner, max_size=3),
    ),
    max_leaves=8,
)
DROP = object()
MUTATIONS = st.lists(st.tuples(st.sampled_from(PLACES), VALUES | st.just(DROP)), min_size=1, max_size=4)


def _mutated(mutations: list[tuple[tuple[Any, ...], Any]]) -> Any:
    document = _document()
    for path, value in mutations:
        inside: Any = document
        with contextlib.suppress(KeyError, IndexError, TypeError):  # an earlier mutation removed the target
            for key in path[:-1]:
                inside = inside[key]
            if value is DROP:
                del inside[path[-1]]
            else:
                inside[path[-1]] = copy.deepcopy(value)
    return document


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("images")
    for number in (1, 2):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


def _score(path: Path) -> None:
    """Score the ground truth as its own detections, by boxes and by masks."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(path)
        annotations = truth.dataset["annotations"]
        assert len(truth.anns) == len(annotations)
        for kind in ("bbox", "segm"):
            if kind == "segm" and not all("segmentation" in entry for entry in annotations):
                continue
            keys = ("image_id", "category_id", "bbox")
            found = [{key: entry[key] for key in keys} | {"score": 0.5} for entry in annotations]
            if kind == "segm":
                found = [
                    {"image_id": entry["image_id"], "category_id": entry["category_id"], "score": 0.5}
                    | {"segmentation": truth.annToRLE(entry)}
                    for entry in annotations
                ]
            if found:
                scorer = COCOeval(truth, truth.loadRes(found), kind)
                scorer.evaluate()
                scorer.accumulate()


def _check(path: Path, folder: Path, masks: bool) -> None:
    try:
        normalised = normalise(path, folder, masks=masks)
    except UserError as error:
        told = str(error)
    else:
        told = ""
    if told:
        assert "\n" not in told
        assert folder.parent.name in told
        return
    document = json.loads(normalised.copy.read_text())
    for entry in document["annotations"]:
        x, y, width, height = entry["bbox"]
        assert x >= -1
        assert y >= -1
        assert width > 0
        assert height > 0
        assert x + width <= WIDTH + 1
        assert y + height <= HEIGHT + 1
        assert entry["area"] > 0
        assert entry["id"] != 0
    assert normalised.images == len(document["images"])
    _score(normalised.copy)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(mutations=MUTATIONS, masks=st.booleans())
def test_a_mutated_document_is_normalised_or_refused_in_one_line(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, mutations: Any, masks: bool
) -> None:
    path = folder.parent / "mutated.json"
    path.write_text(json.dumps(_mutated(mutations)))
    _check(path, folder, masks)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_text_is_refused_in_one_line(folder: Path, data: st.DataObject) -> None:
    text = json.dumps(_document()).encode()
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, len(text)))
    path = folder.parent / "damaged.json"
    path.write_bytes(text[:begin] + data.draw(st.binary(max_size=6)) + text[end:])
    _check(path, folder, masks=True)
