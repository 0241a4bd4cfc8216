"""Selective search, filters and NMS match the authors' outputs on two photographs from scikit-image."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ccop_pretrain.proposals.run import make_proposals
from ccop_pretrain.proposals.selective_search import KEPT_BOXES, keep_objects, non_maximum_suppression, search
from ccop_pretrain.settings import ProposalSettings
from PIL import Image
from skimage import data

from ccop_hub.proposals.store import ProposalStore

PHOTOGRAPHS = ("astronaut", "coffee")


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


@pytest.fixture(params=PHOTOGRAPHS)
def photograph(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def facts(parity: Any, photograph: str) -> dict[str, Any]:
    return parity.json("selective_search.json")[photograph]


@pytest.fixture
def arrays(parity: Any, photograph: str) -> dict[str, np.ndarray]:
    stored = parity.npz("selective_search.npz")
    return {name.removeprefix(f"{photograph}_"): value for name, value in stored.items() if photograph in name}


def upstream_scores(count: int) -> np.ndarray:
    """The authors' scores: uniform on 0.01-1 from NumPy's legacy generator, seed 0."""
    return np.random.RandomState(0).uniform(0.01, 1, count)


def test_search_finds_the_same_rectangles(
    photograph: str, facts: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    image = getattr(data, photograph)()
    if digest(image[..., ::-1]) != facts["image_sha_bgr"]:
        pytest.skip("this scikit-image carries another version of the photograph")
    found = search(image, engine="opencv")
    assert len(found) == facts["n_raw"]
    assert digest(found) == facts["raw_sha_sorted"]
    assert set(map(tuple, found.tolist())) == set(map(tuple, arrays["rects"].tolist()))


def test_filters_keep_as_many(facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    assert len(keep_objects(arrays["rects"])) == facts["n_small"]


def test_nms_and_final_boxes(facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    boxes = keep_objects(arrays["rects"].astype(np.int64))
    scores = upstream_scores(len(boxes))
    np.testing.assert_allclose(scores[:8], arrays["scores_first8"], rtol=0, atol=1e-15)
    kept = non_maximum_suppression(boxes, scores)
    assert len(kept) == facts["n_nms"]
    corners = np.hstack((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]))
    np.testing.assert_array_equal(corners[kept], arrays["nms_xyxy"])
    np.testing.assert_array_equal(scores[kept], arrays["nms_scores"])
    assert facts["n_out"] == KEPT_BOXES
    np.testing.assert_array_equal(boxes[kept][:KEPT_BOXES], arrays["out_xywh"])


def test_edges_of_the_filters_and_of_the_nms(parity: Any) -> None:
    edge = parity.json("selective_search.json")["edge"]
    # Both bounds are exclusive: boxes exactly at 1/3, 3 or 20 pixels are dropped.
    aspect = np.array([[0, 0, 30, 90], *edge["aspect"], [0, 0, 90, 30]])
    np.testing.assert_array_equal(keep_objects(aspect), edge["aspect"])
    small = np.array([[0, 0, 20, 20], [0, 0, 16, 25], *edge["small"]])
    # [0, 0, 10, 41] passes the size filter but fails the aspect ratio filter.
    square = [box for box in edge["small"] if box[3] < 3 * box[2]]
    np.testing.assert_array_equal(keep_objects(small), square)
    assert all(box[2] * box[3] > 400 for box in edge["small"])
    half = np.array(edge["nms_iou_exactly_half"])
    assert sorted(non_maximum_suppression(half, np.array([0.9, 0.1]))) == [0, 1]
    more = np.add(half, [[0, 0, 0, 1], [0, 0, 0, 0]])
    assert non_maximum_suppression(more, np.array([0.9, 0.1])).tolist() == [0]


def test_every_image_gets_its_own_boxes(parity: Any, tmp_path: Path) -> None:
    """The authors distribute paths round-robin to 4 workers and concatenate the results worker by worker."""
    bug = parity.json("selective_search.json")["interleave_bug"]
    images = bug["images"]
    assert bug["boxes_written_for"] != images
    (tmp_path / "images").mkdir()
    for index in images:
        pixels = np.full((80, 40 + 10 * len(images), 3), 30, np.uint8)
        pixels[20:60, 10 + 10 * index : 50 + 10 * index] = 220
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    make_proposals(ProposalSettings(tmp_path / "images", tmp_path / "out", workers=bug["pcount"], engine="opencv"))
    store = ProposalStore.open(tmp_path / "out")
    for index in images:
        # The random scores pick outlines up to four pixels apart; the squares of different images are ten apart.
        squares = np.array([[10 + 10 * other, 20, 50 + 10 * other, 60] for other in images])
        distances = np.abs(store.boxes(f"{index}.png")[:, None] - squares).max(axis=-1)
        assert [other for other in images if distances[:, other].min() <= 4] == [index]
