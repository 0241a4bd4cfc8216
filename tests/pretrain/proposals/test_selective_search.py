import numpy as np
import pytest
from ccop_pretrain.proposals import opencv_search, selective_search
from ccop_pretrain.proposals.selective_search import (
    SearchEngine,
    image_generator,
    keep_objects,
    non_maximum_suppression,
    propose,
    search,
)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Two coloured blocks and a patch of coarse noise on grey."""
    image = np.full((120, 180, 3), 90, np.uint8)
    image[20:80, 20:70] = (220, 40, 30)
    image[50:110, 100:150] = (20, 60, 210)
    noise = np.random.default_rng(0).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    image[5:35, 140:170] = noise.repeat(5, axis=0).repeat(5, axis=1)
    return image


def reference_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Slow reference NMS: in order of score, keep boxes that overlap no kept box by more than the threshold."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        x, y, w, h = boxes[index]
        for other in kept:
            a, b, c, d = boxes[other]
            shared = max(min(x + w, a + c) - max(x, a), 0) * max(min(y + h, b + d) - max(y, b), 0)
            if shared > threshold * (w * h + c * d - shared):
                break
        else:
            kept.append(index)
    return kept


@pytest.mark.parametrize("engine", ["fast", "opencv"])
def test_search_finds_the_blocks_in_a_stable_order(picture: np.ndarray, engine: SearchEngine) -> None:
    first, second = search(picture, engine=engine), search(picture, engine=engine)
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.int32
    assert [20, 20, 50, 60] in first.tolist()
    assert [100, 50, 50, 60] in first.tolist()
    assert first.tolist() == sorted(first.tolist())


@pytest.mark.parametrize("engine", ["fast", "opencv"])
def test_quality_finds_more_than_fast(picture: np.ndarray, engine: SearchEngine) -> None:
    assert len(search(picture, "quality", engine)) > len(search(picture, engine=engine))


@pytest.mark.parametrize("engine", ["fast", "opencv"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (3, 3)])
def test_tiny_images_are_searched(shape: tuple[int, int], engine: SearchEngine) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    assert len(search(image, engine=engine)) >= 1
    assert propose(image, image_generator(0, "tiny"), engine=engine).shape == (0, 4)


def test_the_engine_reaches_the_search(picture: np.ndarray) -> None:
    noisy = np.random.default_rng(1).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    fast, opencv = (propose(noisy, image_generator(0, "x"), engine=engine) for engine in ("fast", "opencv"))
    np.testing.assert_array_equal(fast, propose(noisy, image_generator(0, "x")))
    assert fast.tolist() != opencv.tolist()
    assert {tuple(box) for box in opencv.astype(int)} <= {
        (x, y, x + w, y + h) for x, y, w, h in opencv_search.search(noisy).tolist()
    }


def test_filters_bounds_are_strict() -> None:
    boxes = np.array(
        [[0, 0, 30, 90], [0, 0, 31, 90], [0, 0, 90, 30], [0, 0, 89, 30], [0, 0, 20, 20], [0, 0, 20, 21], [0, 0, 16, 25]]
    )
    assert keep_objects(boxes).tolist() == [[0, 0, 31, 90], [0, 0, 89, 30], [0, 0, 20, 21]]


def test_filters_do_not_overflow_small_integers() -> None:
    boxes = np.array([[0, 0, 20_000, 20_000]], dtype=np.int16)
    assert len(keep_objects(boxes)) == 1


def test_nms_agrees_with_the_obvious_one() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        boxes = np.concatenate((rng.integers(0, 60, (40, 2)), rng.integers(10, 60, (40, 2))), axis=1)
        scores = rng.random(40)
        assert non_maximum_suppression(boxes, scores).tolist() == reference_nms(boxes, scores, 0.5)


def test_nms_at_exactly_half_keeps_both() -> None:
    half = np.array([[0, 0, 30, 30], [0, 0, 30, 60]])
    assert non_maximum_suppression(half, np.array([0.1, 0.9])).tolist() == [1, 0]
    beyond = np.array([[0, 0, 30, 31], [0, 0, 30, 60]])
    assert non_maximum_suppression(beyond, np.array([0.1, 0.9])).tolist() == [1]
    assert non_maximum_suppression(np.zeros((0, 4)), np.zeros(0)).shape == (0,)


def test_scores_closer_than_float32_still_rank() -> None:
    boxes = np.array([[0, 0, 30, 30], [0, 0, 30, 31]])
    assert non_maximum_suppression(boxes, np.array([0.5, 0.5 + 1e-12])).tolist() == [1]


def test_generator_depends_on_seed_and_path_alone() -> None:
    assert image_generator(0, "a/b.jpg").random() == image_generator(0, "a/b.jpg").random()
    draws = {image_generator(seed, image).random() for seed in (0, 1) for image in ("a/b.jpg", "a/c.jpg", "b.jpg")}
    assert len(draws) == 6


def test_proposals_pass_filters_and_nms(picture: np.ndarray) -> None:
    boxes = propose(picture, image_generator(0, "x"))
    assert boxes.dtype == np.float32
    sizes = np.hstack((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]))
    assert len(keep_objects(sizes)) == len(boxes) > 2
    assert non_maximum_suppression(sizes, -np.arange(len(boxes), dtype=float)).tolist() == list(range(len(boxes)))
    assert {tuple(size) for size in sizes.astype(int)} <= {tuple(box) for box in search(picture)}
    np.testing.assert_array_equal(propose(picture, image_generator(0, "x"), keep=2), boxes[:2])
    assert propose(picture, image_generator(1, "x")).tolist() != boxes.tolist()


def test_search_on_a_smaller_copy_gives_boxes_of_the_original(picture: np.ndarray) -> None:
    large = picture.repeat(4, axis=0).repeat(3, axis=1)
    boxes = propose(large, image_generator(0, "x"), max_side=160)
    overlap = 0.0
    for expected in ([60, 80, 210, 320], [300, 200, 450, 440]):
        low, high = np.maximum(boxes[:, :2], expected[:2]), np.minimum(boxes[:, 2:], expected[2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + np.prod(np.subtract(expected[2:], expected[:2])) - shared
        overlap = (shared / union).max()
        assert overlap > 0.85
    assert (boxes >= 0).all()
    assert (boxes <= (540, 480, 540, 480)).all()
    untouched = propose(picture, image_generator(0, "x"), max_side=180)
    np.testing.assert_array_equal(untouched, propose(picture, image_generator(0, "x")))


def test_the_search_of_a_huge_image_has_a_bounded_size(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    most = selective_search.SEARCHED_PIXELS
    assert selective_search.searched_size(4096, 4096, None) == (4096, 4096)
    for width, height in ((4097, 4096), (12_000, 7_400), (1, 89_000_000), (89_000_000, 1)):
        small = selective_search.searched_size(width, height, None)
        assert 0.99 * most < small[0] * small[1] <= most
        assert small[0] / small[1] == pytest.approx(width / height, rel=0.01) or 1 in small
    assert selective_search.searched_size(12_000, 6_000, 300) == (300, 150)
    searched = []
    monkeypatch.setattr(selective_search, "search", lambda image, *_: searched.append(image.shape) or search(image))
    monkeypatch.setattr(selective_search, "SEARCHED_PIXELS", picture.shape[0] * picture.shape[1])
    boxes = propose(picture.repeat(4, axis=0).repeat(4, axis=1), image_generator(0, "x"))
    assert searched == [picture.shape]
    assert (boxes % 4 == 0).all()
