import cv2
import numpy as np
import pytest

from ccop_hub.synthetic.shapes import SHAPES, outline, place


def fill(contours: list[np.ndarray], size: int = 200) -> np.ndarray:
    """Mask of an outline of radius 1, drawn around the origin."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round((contour + 1) / 2 * (size - 1)).astype(np.int32) for contour in contours], 1)
    return mask.astype(bool)


def test_at_least_eight_classes() -> None:
    assert len(set(SHAPES)) >= 8


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_fill_the_unit_circle(shape: str) -> None:
    for seed in range(10):
        contours = outline(shape, np.random.default_rng(seed))
        outer = contours[0]
        assert np.linalg.norm(outer, axis=1).max() == pytest.approx(1)
        np.testing.assert_allclose(outer.max(axis=0) + outer.min(axis=0), 0, atol=1e-9)
        assert 0.12 < fill(contours).mean() < 0.8


@pytest.mark.parametrize("shape", SHAPES)
def test_members_of_a_class_vary_once_placed(shape: str) -> None:
    masks = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        masks.append(fill([c / 100 - 1 for c in place(outline(shape, rng), rng, 70, (100, 100))]))
    shared = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    assert 0 < shared < 0.97


def test_classes_differ_by_outline() -> None:
    """Upright outlines of different classes never agree as much as two of the same class do on average."""
    members = {shape: [fill(outline(shape, np.random.default_rng(seed))) for seed in range(4)] for shape in SHAPES}
    for first in SHAPES:
        for second in SHAPES:
            if first < second:
                for a in members[first]:
                    for b in members[second]:
                        assert (a & b).sum() / (a | b).sum() < 0.9


def test_rings_have_a_hole_and_crescents_a_bite() -> None:
    ring = fill(outline("ring", np.random.default_rng(0)))
    assert not ring[100, 100]
    _, labels = cv2.connectedComponents((~ring).astype(np.uint8), connectivity=4)
    assert labels[100, 100] != labels[0, 0]
    crescent = fill(outline("crescent", np.random.default_rng(0)))
    assert crescent.mean() < 0.5


def test_placing_moves_and_scales() -> None:
    contours = place(outline("disc", np.random.default_rng(0)), np.random.default_rng(1), 50, (300, 120))
    np.testing.assert_allclose(contours[0].mean(axis=0), (300, 120), atol=1e-6)
    reach = np.linalg.norm(contours[0] - (300, 120), axis=1)
    assert 30 < reach.min() < reach.max() < 80
