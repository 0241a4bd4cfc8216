import cv2
import numpy as np
from ccop_pretrain.proposals.fast_search import colour_spaces


def some_colours() -> np.ndarray:
    """Every seventh value of each channel, plus random ones: 38**3 + 1000 pixels, (N, 1, 3)."""
    steps = np.array([*range(0, 256, 7), 255], np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 1, 3)
    return np.concatenate((grid, np.random.default_rng(0).integers(0, 256, (1000, 1, 3), dtype=np.uint8)))


def test_the_five_images_are_opencvs() -> None:
    image = some_colours()
    made = list(colour_spaces.colour_images(image, quality=True))
    hsv, lab = cv2.cvtColor(image, cv2.COLOR_RGB2HSV), cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    expected = [hsv, lab, grey, hsv[..., :1], np.concatenate((image[..., :2], grey), axis=2)]
    for ours, theirs in zip(made, expected, strict=True):
        assert ours.shape == theirs.shape
        # Some OpenCV builds round differently; a wrong formula or channel order would be off by far more.
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
    assert [image.shape for image in colour_spaces.colour_images(image, quality=False)] == [image.shape] * 2


def test_known_colours() -> None:
    image = np.array([[[255, 0, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]]], np.uint8)
    hsv, lab, grey = list(colour_spaces.colour_images(image, quality=True))[:3]
    assert hsv[0].tolist() == [[0, 255, 255], [120, 255, 255], [0, 0, 255], [0, 0, 0]]
    assert lab[0, 2:].tolist() == [[255, 128, 128], [0, 128, 128]]
    assert grey[0, :, 0].tolist() == [76, 29, 255, 0]


def test_no_entry_of_a_table_is_near_a_tie() -> None:
    """The tables use the C library's powers and roots, whose last bits vary; rounding must hide this."""
    share = np.arange(3072) / 2040
    root = np.where(share < 0.008856, share * 7.787 + 16 / 116, np.cbrt(share)) * 2**15
    encoded = np.arange(256) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4) * 2040
    for table, rounded in ((root, colour_spaces._lab_tables()[2]), (linear, colour_spaces._lab_tables()[0])):
        np.testing.assert_array_equal(np.rint(table), rounded)
        assert np.abs(table - np.floor(table) - 0.5).min() > 1e-6
