import numpy as np
import pytest
from ccop_eval.common.pictures import sheet, spread, stacked, wrap
from PIL import Image, ImageFont

FONT = ImageFont.load_default(11)


@pytest.mark.parametrize(
    "text", ["a title of several words that is too long", "resnet50.mocov2_in1k_800ep" * 4, "", "x"]
)
def test_wrapped_lines_fit_and_hold_the_whole_text(text):
    lines = wrap(text, 96, FONT)
    assert all(FONT.getlength(line) <= 96 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def dark(picture):
    """Columns and rows with ink."""
    ink = np.asarray(picture.convert("L")) < 128
    return ink.any(0), ink.any(1)


def test_no_text_reaches_the_edge_or_the_next_tile():
    long = "weights: a_class_with_a_very_long_name_that_does_not_fit_below_its_picture"
    white = Image.new("RGB", (64, 64), "white")
    picture = sheet([[(white, long), (white, "")]], (96, 96), ["against: " + "a-very-long-name-of-weights/" * 4])
    columns, rows = dark(picture)
    assert not columns[-4:].any()
    assert not rows[-1:].any()
    lower = picture.crop((0, picture.height // 2, picture.width, picture.height))
    assert not dark(lower)[0][104:].any(), "the caption stays below its own picture"


def test_rows_do_not_overlap():
    red, blue = (Image.new("RGB", (10, 10), name) for name in ("red", "blue"))
    pixels = np.asarray(sheet([[(red, "one\ntwo\nthree")], [(blue, "")]], (50, 50), ["first " * 20, "second"]))
    for colour in ((255, 0, 0), (0, 0, 255)):
        assert (pixels == colour).all(-1).sum() == 50 * 50


def test_spread_takes_indices_evenly():
    assert spread(10, 5) == [0, 2, 4, 6, 8]
    assert spread(2, 5) == [0, 1]


def test_a_legend_is_below_its_sheet_and_both_are_whole():
    upper, lower = Image.new("RGB", (30, 10), "red"), Image.new("RGB", (40, 5), "blue")
    both = stacked(upper, lower)
    assert both.size == (40, 15)
    assert [both.getpixel(place) for place in ((29, 9), (39, 14), (35, 5))] == [(255, 0, 0), (0, 0, 255), (255,) * 3]
