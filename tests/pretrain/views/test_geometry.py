import numpy as np
import pytest
import torch
from ccop_pretrain.common.seeding import derive_seed
from ccop_pretrain.settings import ViewSettings
from ccop_pretrain.views.draws import Crop, ViewDraws, draw_views
from ccop_pretrain.views.geometry import TwoViews, View, kept_share, most_reduction, render_view, two_views
from PIL import Image

WHOLE = [Crop(0, 0, 100, 100)]
SETTINGS = ViewSettings(image_size=100, min_box_area=0)


def test_draws_depend_on_the_seed_alone_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = draw_views((120, 90), 7, SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert draw_views((120, 90), 7, SETTINGS) == first
    assert draw_views((120, 90), 8, SETTINGS) != first


def test_drawn_crops_lie_in_the_image_and_in_the_asked_range():
    draws = [draw_views((160, 120), seed, SETTINGS) for seed in range(40)]
    crops = [crop for drawn in draws for tries in drawn.tries for crop in tries]
    assert len(crops) == 40 * 2 * SETTINGS.crop_tries
    for crop in crops:
        assert 0 <= crop.top <= crop.top + crop.height <= 120
        assert 0 <= crop.left <= crop.left + crop.width <= 160
    shares = np.array([crop.height * crop.width / (160 * 120) for crop in crops])
    assert 0.09 < shares.min() < 0.15
    assert 0.85 < shares.max() <= 1.0
    flips = np.array([(*drawn.flips, drawn.swap) for drawn in draws])
    assert np.abs((flips < 0.5).mean(0) - 0.5).max() < 0.25


def test_seeds_of_neighbours_and_of_purposes_are_apart():
    seeds = {derive_seed(purpose, 0, epoch, index) for purpose in "ab" for epoch in range(9) for index in range(9)}
    assert len(seeds) == 2 * 81
    assert derive_seed("a", 1, 2, 3) == derive_seed("a", 1, 2, 3)


@pytest.mark.parametrize(("swap", "query_is_first"), [(0.5, True), (0.49, False)])
def test_swap_and_flip(swap, query_is_first):
    boxes = np.array([[10, 20, 30, 60]], np.float32)
    views = two_views(boxes, ViewDraws((WHOLE, WHOLE), (0.2, 0.8), swap), SETTINGS)
    first, second = (views.query, views.key) if query_is_first else (views.key, views.query)
    assert (first.flipped, second.flipped) == (False, True)
    assert first.boxes.tolist() == [[10, 20, 30, 60]]
    assert second.boxes.tolist() == [[70, 20, 90, 60]]


def test_a_box_must_survive_in_both_views():
    boxes = np.array([[0, 0, 20, 20], [60, 60, 90, 90]], np.float32)
    draws = ViewDraws((WHOLE, [Crop(50, 50, 50, 50)]), (0.0, 0.0), 0.9)
    views = two_views(boxes, draws, SETTINGS)
    assert views.kept.tolist() == [1]
    assert views.query.boxes.tolist() == [[60, 60, 90, 90]]
    assert views.key.boxes.tolist() == [[20, 20, 80, 80]]


def test_the_smallest_area_scales_with_the_image():
    boxes = np.array([[0, 0, 11, 12], [0, 0, 13, 12]], np.float32) * 224 / 112
    draws = ViewDraws(([Crop(0, 0, 448, 448)],) * 2, (0.0, 0.0), 0.9)
    assert two_views(boxes * 1.0, draws, ViewSettings(image_size=224)).kept.tolist() == [1]
    assert two_views(boxes * 1.0, draws, ViewSettings(image_size=112)).kept.tolist() == [1]


def test_an_image_without_boxes_and_an_empty_box():
    views = two_views(np.zeros((0, 4), np.float32), ViewDraws((WHOLE, WHOLE), (0, 0), 0), SETTINGS)
    assert views.query.boxes.shape == views.key.boxes.shape == (0, 4)
    assert kept_share(np.array([[5, 5, 5, 9]], np.float32), WHOLE[0]).tolist() == [0]


def test_pixels_and_boxes_of_a_flipped_view_agree():
    image = Image.new("RGB", (200, 100))
    image.paste((255, 0, 0), (20, 30, 60, 70))
    boxes = np.array([[20, 30, 60, 70]], np.float32)
    draws = ViewDraws(([Crop(10, 10, 80, 160)], [Crop(0, 0, 100, 200)]), (0.9, 0.1), 0.9)
    views = two_views(boxes, draws, SETTINGS)
    for view in (views.query, views.key):
        red = render_view(np.array(image), view, 100)[0].float() / 255
        left, top, right, bottom = view.boxes[0].astype(int)
        assert red[top + 2 : bottom - 2, left + 2 : right - 2].min() > 0.9
        assert red.sum() == pytest.approx((right - left) * (bottom - top), rel=0.15)


def test_render_is_rgb_uint8():
    pixels = render_view(np.full((8, 8, 3), (1, 2, 3), np.uint8), View(Crop(0, 0, 8, 8), False, np.zeros((0, 4))), 4)
    assert pixels.dtype == torch.uint8
    assert pixels[:, 0, 0].tolist() == [1, 2, 3]


def views_of(*sides):
    crops = [View(Crop(0, 0, height, width), False, np.zeros((0, 4), np.float32)) for width, height in sides]
    return TwoViews(crops[0], crops[1], np.zeros(0, np.int64))


@pytest.mark.parametrize(
    ("first", "second", "most"),
    [
        ((480, 360), (480, 360), 1),
        ((800, 900), (1000, 900), 2),
        ((799, 900), (1000, 900), 1),
        ((1600, 1700), (2**14, 1600), 4),
    ],
)
def test_the_smaller_crop_decides_by_how_much_an_image_is_reduced(first, second, most):
    assert most_reduction(views_of(first, second), 200) == most


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(
    "crop", [Crop(3, 5, 100, 90), Crop(0, 0, 200, 300), Crop(40, 50, 20, 11), Crop(199, 299, 1, 1)]
)
def test_rendering_is_pillows_but_for_rounding(crop, flipped):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    top, left, height, width = crop
    part = Image.fromarray(pixels).crop((left, top, left + width, top + height))
    expected = np.asarray(part.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    found = render_view(pixels, View(crop, flipped, np.zeros((0, 4))), 64).permute(1, 2, 0).numpy()
    assert np.abs(found - (expected[:, ::-1] if flipped else expected)).max() <= 1


@pytest.mark.parametrize("flipped", [False, True])
def test_a_view_of_a_reduced_image_has_the_geometry_of_the_full_one(flipped):
    rows, columns = np.mgrid[:400, :600]
    pixels = np.stack([rows * 0.6, columns * 0.4, 255 * ((rows // 80 + columns // 80) % 2)], axis=-1).astype(np.uint8)
    reduced = pixels.reshape(200, 2, 300, 2, 3).mean((1, 3)).round().astype(np.uint8)
    view = View(Crop(33, 77, 301, 405), flipped, np.zeros((0, 4)))
    full = render_view(pixels, view, 64).float()
    other = render_view(reduced, view, 64, 2).float()
    assert (full - other).abs().mean() < 1
    # A shift by half a pixel of the reduced image would change these ramps everywhere.
    assert (full - other)[:2].abs().max() <= 2


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_view_of_padded_pixels_is_that_of_plain_ones(reduction, flipped):
    padded = np.random.default_rng(0).integers(0, 256, (90, 120, 4), dtype=np.uint8)
    padded.flags.writeable = False
    pixels = padded.reshape(-1).reshape(90, 120, 4)[:, :, :3]
    view = View(Crop(7, 11, 60, 80), flipped, np.zeros((0, 4)))
    found = render_view(pixels, view, 32, reduction)
    assert found.shape == (3, 32, 32)
    assert torch.equal(found, render_view(np.ascontiguousarray(pixels), view, 32, reduction))
