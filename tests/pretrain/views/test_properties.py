"""Boxes carried through crops and flips, for any image size and any box in it."""

import numpy as np
import torch
from ccop_pretrain.settings import ViewSettings
from ccop_pretrain.views.draws import Crop, ViewDraws, draw_views
from ccop_pretrain.views.geometry import (
    View,
    boxes_in_crop,
    kept_share,
    render_view,
    two_views,
)
from hypothesis import given, settings
from hypothesis import strategies as st

SIDE = 32
SETTINGS = ViewSettings(image_size=SIDE, min_box_area=0, kept_share=0.3)

sides = st.integers(1, 60) | st.sampled_from([1, 2, 5000, 20000])
share = st.floats(0, 1, width=32)


@st.composite
def images(draw: st.DrawFn) -> tuple[int, int]:
    return draw(sides), draw(sides)


@st.composite
def boxes_in(draw: st.DrawFn, size: tuple[int, int], most: int = 4) -> np.ndarray:
    """Boxes inside an image, empty ones included: (N, 4) float32 xyxy in pixels."""
    rows = []
    for _ in range(draw(st.integers(0, most))):
        x, y = (sorted((draw(share) * side, draw(share) * side)) for side in size)
        rows.append([x[0], y[0], x[1], y[1]])
    return np.array(rows, np.float32).reshape(-1, 4)


@st.composite
def crops(draw: st.DrawFn, size: tuple[int, int]) -> Crop:
    width, height = size
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return Crop(top, left, draw(st.integers(1, height - top)), draw(st.integers(1, width - left)))


@settings(max_examples=60, deadline=None)
@given(size=images(), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_views_of_any_image_hold_boxes_inside_them(size, seed, data) -> None:
    boxes = data.draw(boxes_in(size))
    views = two_views(boxes, draw_views(size, seed, SETTINGS), SETTINGS)
    for view in (views.query, views.key):
        top, left, height, width = view.crop
        assert 0 <= top < top + height <= size[1]
        assert 0 <= left < left + width <= size[0]
        assert len(view.boxes) == len(views.kept) <= len(boxes)
        assert view.boxes.dtype == np.float32
        assert np.isfinite(view.boxes).all()
        assert (view.boxes >= 0).all()
        assert (view.boxes <= SIDE - 1).all()
        assert (view.boxes[:, 2:] >= view.boxes[:, :2]).all()
        assert (kept_share(boxes[views.kept], view.crop) > SETTINGS.kept_share).all()


@settings(max_examples=80, deadline=None)
@given(size=images(), data=st.data())
def test_the_share_of_a_box_in_a_crop_is_the_share_of_its_area(size, data) -> None:
    boxes, crop = data.draw(boxes_in(size)), data.draw(crops(size))
    kept = kept_share(boxes, crop)
    wide, narrow = boxes.astype(np.float64), []
    for x1, y1, x2, y2 in wide:
        width = max(0.0, min(x2, crop.left + crop.width) - max(x1, crop.left))
        height = max(0.0, min(y2, crop.top + crop.height) - max(y1, crop.top))
        area = (x2 - x1) * (y2 - y1)
        narrow.append(width * height / area if np.float32(area) > 0 else 0.0)
    assert (kept >= 0).all()
    assert (kept <= 1 + 1e-6).all()
    # Coordinates of up to 20,000 pixels are exact to 1/1024 in float32.
    assert np.allclose(kept[areas(boxes) > 4], np.array(narrow, np.float64)[areas(boxes) > 4], atol=2e-3)


@settings(max_examples=80, deadline=None)
@given(size=images(), data=st.data())
def test_a_box_goes_to_the_view_and_back(size, data) -> None:
    boxes, crop = data.draw(boxes_in(size)), data.draw(crops(size))
    placed = boxes_in_crop(boxes, crop, SIDE)
    assert (placed >= 0).all()
    assert (placed <= SIDE * (1 + 1e-6)).all()
    scale = np.array([crop.width / SIDE, crop.height / SIDE] * 2)
    corner = np.array([crop.left, crop.top] * 2)
    back = placed * scale + corner
    clipped = np.clip(boxes, corner, corner + [crop.width, crop.height] * 2)
    assert np.allclose(back, clipped, rtol=0, atol=1e-6 * max(size) * 8)


@settings(max_examples=60, deadline=None)
@given(size=images(), data=st.data())
def test_flipping_both_views_mirrors_the_boxes(size, data) -> None:
    boxes, crop = data.draw(boxes_in(size)), data.draw(crops(size))
    plain, flipped = (two_views(boxes, ViewDraws(([crop], [crop]), (flip, 0.0), 0.9), SETTINGS) for flip in (0.0, 0.5))
    assert plain.kept.tolist() == flipped.kept.tolist()
    there, here = flipped.query.boxes, plain.query.boxes
    # Clamping to 0 .. S - 1, as in the authors' code, is not symmetric: it moves an edge by at most a pixel.
    assert np.allclose(there[:, [0, 2]], (SIDE - here[:, [2, 0]]), atol=1 + 1e-4)
    assert np.array_equal(there[:, [1, 3]], here[:, [1, 3]])
    assert np.array_equal(plain.key.boxes, flipped.key.boxes)


@settings(max_examples=25, deadline=None)
@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 1000), flipped=st.booleans())
def test_any_crop_is_rendered_at_the_size_of_the_view(size, seed, flipped) -> None:
    image = np.full((size[1], size[0], 3), (10, 20, 30), np.uint8)
    for crop in draw_views(size, seed, SETTINGS).tries[0][:2]:
        pixels = render_view(image, View(crop, flipped, np.zeros((0, 4), np.float32)), SIDE)
        assert pixels.shape == (3, SIDE, SIDE)
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels[:, 0, 0], torch.tensor([10, 20, 30], dtype=torch.uint8))


def areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
