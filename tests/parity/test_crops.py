"""Crops, box filtering, flips and swaps match the output of the authors' code."""

import hashlib

import numpy as np
import pytest
from ccop_pretrain.settings import ViewSettings
from ccop_pretrain.views.draws import Crop, ViewDraws
from ccop_pretrain.views.geometry import (
    View,
    boxes_in_crop,
    choose_crop,
    kept_share,
    render_view,
    two_views,
)


@pytest.fixture(scope="module")
def crops(parity):
    return parity.json("crops.json")


@pytest.fixture(scope="module")
def settings(crops):
    aug = crops["aug"]
    return ViewSettings(
        image_size=aug["size"],
        crop_area=tuple(aug["scale"]),
        crop_ratio=tuple(aug["ratio"]),
        crop_tries=aug["max_try"],
        min_boxes=aug["min_box_num"],
        kept_share=aug["part_thr"],
        min_box_area=aug["area_thr"],
    )


def test_two_views_equal_the_authors_in_every_case(crops, settings):
    assert crops["cases"]
    for number, case in enumerate(crops["cases"]):
        draws = ViewDraws(
            (
                [Crop(*crop) for crop in case["tries1"]],
                [Crop(*crop) for crop in case["tries2"]],
            ),
            (case["r_flip1"], case["r_flip2"]),
            case["r_swap"],
        )
        views = two_views(np.array(case["boxes"], np.float32), draws, settings)
        assert views.kept.tolist() == case["keep"], number
        for view, expected in ((views.query, case["out1"]), (views.key, case["out2"])):
            np.testing.assert_allclose(
                view.boxes, np.array(expected, np.float32).reshape(-1, 4), atol=1e-4, err_msg=str(number)
            )


def test_the_crop_is_chosen_among_the_tries_as_the_authors_do(crops, settings):
    assert crops["forced"]
    for case in crops["forced"]:
        boxes = np.array(case["boxes"], np.float32)
        wanted = ViewSettings(**{**vars(settings), "min_boxes": case["min_box_num"]})
        crop = choose_crop(boxes, [Crop(*tried) for tried in case["tries"]], wanted)
        assert (kept_share(boxes, crop) > settings.kept_share).astype(int).tolist() == case["keep"]
        placed = boxes_in_crop(boxes, crop, settings.image_size)
        if any(case["keep"]):
            np.testing.assert_allclose(placed, case["out_boxes_before_filter"], atol=1e-4)
        used = case["n_tries_used"]
        longer = [Crop(*tried) for tried in case["tries"][:used]] + [Crop(0, 0, 1, 1)] * 5
        if used < settings.crop_tries:
            assert choose_crop(boxes, longer, wanted) == Crop(*case["tries"][used - 1])
        share = np.sqrt(crop.height * crop.width / (case["width"] * case["height"]))
        assert share == pytest.approx(case["rel_scale"], rel=1e-6)


def test_the_pixels_of_a_crop_are_the_authors(crops, settings):
    image = pytest.importorskip("skimage.data").astronaut()
    none = np.zeros((0, 4), np.float32)
    for case in crops["astronaut_crops"]:
        view = View(Crop(*case["crop_ijhw"]), False, none)
        pixels = render_view(image, view, settings.image_size).permute(1, 2, 0).contiguous().numpy()
        # The exact bytes depend on Pillow's version; the values do not.
        same_bytes = hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == case["sha_uint8_hwc"]
        row = pixels[100][::16].astype(int)
        assert pixels.mean() == pytest.approx(case["mean"], abs=0 if same_bytes else 0.05)
        assert np.abs(row - np.array(case["row100"])).max() <= (0 if same_bytes else 2)
