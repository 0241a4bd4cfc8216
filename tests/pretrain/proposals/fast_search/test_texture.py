import numpy as np
import pytest
from ccop_pretrain.proposals.fast_search import texture


def slow_scharr(image: np.ndarray, along_y: bool) -> np.ndarray:
    height, width, channels = image.shape
    mode = [((1, 1) if side > 1 else (0, 0)) for side in (height, width)]
    padded = np.pad(image.astype(int), (*mode, (0, 0)), mode="reflect")
    # A side of one pixel mirrors onto itself.
    padded = np.pad(padded, ((0, 0) if height > 1 else (1, 1), (0, 0) if width > 1 else (1, 1), (0, 0)), mode="edge")
    kernel = np.outer((3, 10, 3), (-1, 0, 1))
    kernel = kernel.T if along_y else kernel
    out = np.zeros((height, width, channels), int)
    for i in range(3):
        for j in range(3):
            out += kernel[i, j] * padded[i : i + height, j : j + width]
    return out


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The value at a point; black outside the image."""
    left, top = int(np.floor(x)), int(np.floor(y))
    total = np.zeros(image.shape[2])
    for row, column, weight in (
        (top, left, (left + 1 - x) * (top + 1 - y)),
        (top, left + 1, (x - left) * (top + 1 - y)),
        (top + 1, left, (left + 1 - x) * (y - top)),
        (top + 1, left + 1, (x - left) * (y - top)),
    ):
        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
            total += weight * image[row, column]
    return total


@pytest.mark.parametrize("shape", [(12, 17, 3), (20, 9, 1), (1, 8, 3), (8, 1, 1), (1, 1, 3)])
@pytest.mark.parametrize("along_y", [False, True])
def test_gradients_are_scharrs(shape: tuple[int, int, int], along_y: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(texture.scharr(image, along_y), slow_scharr(image, along_y))


@pytest.mark.parametrize("shape", [(14, 23, 3), (21, 8, 1), (1, 30, 3)])
def test_turning_there_and_back(shape: tuple[int, int, int]) -> None:
    height, width, _ = shape
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    across, down = texture.turned_size(width, height)
    turned = texture.turn(image, across, down)
    sine = np.sqrt(0.5)
    for row in range(down):
        for column in range(across):
            dx, dy = column - across / 2, row - down / 2
            expected = bilinear(image, sine * (dx - dy) + width / 2, sine * (dx + dy) + height / 2)
            assert np.abs(turned[row, column] - expected).max() < 3  # weights have 8 bits along each axis
    gradient = texture.scharr(turned, False)
    back = texture.turn_back(gradient, width, height)
    start_x, start_y = max(0, (across - width) // 2), max(0, (down - height) // 2)
    for row in range(height):
        for column in range(width):
            dx, dy = column + start_x - across // 2, row + start_y - down // 2
            expected = bilinear(gradient, sine * (dx + dy) + across // 2, sine * (dy - dx) + down // 2)
            assert np.abs(back[row, column] - expected).max() < 2 * 4080 / 256 * 2


def test_each_part_of_a_gradient_is_spread_over_ten_bins() -> None:
    rng = np.random.default_rng(0)
    values = np.stack((rng.integers(-900, 1300, 500), rng.integers(0, 40, 500), np.zeros(500)), axis=1).astype(np.int16)
    bins = np.full((500, 6), 255, np.uint8)
    texture.bin_gradients(values, bins, 1)
    assert (bins[:, :3] == 255).all()
    for channel in range(3):
        column = values[:, channel].astype(float)
        for part, decoded in (
            (np.maximum(column, 0), np.where(bins[:, 3 + channel] >= 10, bins[:, 3 + channel].astype(int) - 10, 0)),
            (np.minimum(column, 0), np.where(bins[:, 3 + channel] >= 10, 9, bins[:, 3 + channel])),
        ):
            low, high = part.min(), part.max()
            if low == high:
                assert len(set(decoded.tolist())) == 1
                continue
            steps = 255 * (part - low) / (high - low)
            np.testing.assert_array_equal(decoded, (np.floor(steps + 0.5) * 10 / 256).astype(int))


def test_all_four_directions_are_there() -> None:
    ramp = np.arange(64, dtype=np.uint8)[None, :, None].repeat(64, axis=0)
    middle = np.arange(64 * 64).reshape(64, 64)[24:40, 24:40].ravel()
    zero = 9
    x, y, _, _ = texture.texture_bins(np.ascontiguousarray(ramp))[middle].T
    assert (x >= 10).all()
    assert (y == zero).all()


def test_the_turned_axes_are_the_diagonals() -> None:
    """Along a diagonal, brightness rises by 2 * sqrt(2) per pixel, which Scharr's weights multiply by 32."""
    diagonal = ((np.arange(64)[:, None] + np.arange(64)) * 2).astype(np.uint8)[..., None]
    turned = texture.turn(np.ascontiguousarray(diagonal), *texture.turned_size(64, 64))
    slopes = [texture.turn_back(texture.scharr(turned, along_y), 64, 64)[24:40, 24:40] for along_y in (False, True)]
    assert sorted(round(abs(float(slope.mean()))) for slope in slopes) == [0, pytest.approx(64 * 2**0.5, abs=2)]
    bins = texture.texture_bins(np.ascontiguousarray(diagonal)).reshape(64, 64, 4)[24:40, 24:40]
    for direction, slope in enumerate(slopes):
        np.testing.assert_array_equal(bins[..., 2 + direction] >= 10, slope[..., 0] > 0)
