import numpy as np
import pytest
from ccop_pretrain.proposals.fast_search import segmentation


def patches(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Flat patches with noise: regions to find, and many edges to reject."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, channels))
    image = coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width] + rng.normal(0, 9, (height, width, channels))
    return np.clip(image, 0, 255).astype(np.uint8)


def slow_smoothing(image: np.ndarray) -> np.ndarray:
    """Floating-point reference Gaussian: (H, W, C), mirrored at the borders."""
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 0.8**2))
    kernel /= kernel.sum()
    padded = np.pad(image.astype(float), ((3, 3), (3, 3), (0, 0)), mode="reflect")
    height, width = image.shape[:2]
    rows = sum(weight * padded[:, j : j + width] for j, weight in enumerate(kernel))
    return sum(weight * rows[j : j + height] for j, weight in enumerate(kernel))


def slow_segments(edges: list[tuple[int, int, np.float32]], count: int, scale: float, min_size: int) -> list[int]:
    """Straightforward reference of Felzenszwalb's algorithm, with components as sets of pixels."""
    members = [{pixel} for pixel in range(count)]
    limit = [np.float32(scale)] * count
    home = list(range(count))

    def join(a: int, b: int) -> int:
        if len(members[a]) < len(members[b]):
            a, b = b, a
        members[a] |= members[b]
        for pixel in members[b]:
            home[pixel] = a
        return a

    refused = []
    for x, y, weight in edges:
        a, b = home[x], home[y]
        if a != b and weight <= limit[a] and weight <= limit[b]:
            a = join(a, b)
            limit[a] = weight + np.float32(scale) / np.float32(len(members[a]))
        elif a != b:
            refused.append((x, y))
    for x, y in refused:
        a, b = home[x], home[y]
        if a != b and min(len(members[a]), len(members[b])) < min_size:
            join(a, b)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(home[pixel], len(numbers)) for pixel in range(count)]


def edges_of(image: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, np.float32]]]:
    width, channels = image.shape[1:]
    weights = (segmentation._smoothing_weights(11), segmentation._smoothing_weights(12))
    smooth = segmentation.smoothed(image, *weights)
    coded = segmentation.sorted_edges(segmentation.edge_keys(smooth, channels))
    keys = coded[:, 1].copy().view(np.float32)
    values = np.sqrt(keys - np.float32(1)) * np.float32(1 / 128)
    first = coded[:, 0] >> 1
    second = first + np.where(coded[:, 0] & 1, width, 1)
    return smooth, list(zip(first.tolist(), second.tolist(), values, strict=True))


@pytest.mark.parametrize("shape", [(40, 61, 3), (33, 20, 1), (9, 4, 3)])
def test_smoothing_is_the_gaussian(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    smooth, _ = edges_of(image)
    assert np.abs(smooth.reshape(shape) / 128 - slow_smoothing(image)).max() < 0.2  # of 255


@pytest.mark.parametrize("channels", [1, 3])
def test_edges_are_all_there_and_rise(channels: int) -> None:
    smooth, edges = edges_of(patches(30, 41, channels))
    flat = smooth.reshape(-1, channels).astype(int)
    expected = {(y * 41 + x, y * 41 + x + 1) for y in range(30) for x in range(40)}
    expected |= {(y * 41 + x, y * 41 + x + 41) for y in range(29) for x in range(41)}
    assert {(first, second) for first, second, _ in edges} == expected
    assert len(edges) == len(expected)
    squared = np.array([((flat[first] - flat[second]) ** 2).sum() for first, second, _ in edges])
    np.testing.assert_allclose([weight for *_, weight in edges], np.sqrt(squared) / 128, rtol=1e-6)
    # Distances that differ by less than one part in 2048 may stay in pixel order.
    assert (np.maximum.accumulate(squared) <= squared * (1 + 2**-10) + 1).all()


@pytest.mark.parametrize(("shape", "seed"), [((60, 47, 3), 0), ((60, 47, 1), 1), ((1, 150, 3), 2), ((150, 1, 3), 3)])
def test_segments_are_those_of_the_obvious_algorithm(
    shape: tuple[int, int, int], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "MIN_SIZE", 6)  # makes the scale matter more
    image = patches(*shape, seed=seed)
    scales = (20.0, 80.0, 450.0)
    labels, counts = segmentation.segment(image, scales)
    _, edges = edges_of(image)
    for label, count, scale in zip(labels, counts, scales, strict=True):
        expected = slow_segments(edges, shape[0] * shape[1], scale, segmentation.MIN_SIZE)
        assert label.ravel().tolist() == expected
        assert count == max(expected) + 1
    if min(shape[:2]) > 1:
        assert counts[0] > counts[2] > 1


def test_a_flat_image_is_one_region_and_small_regions_do_not_stay() -> None:
    labels, counts = segmentation.segment(np.full((50, 60, 3), 7, np.uint8), (150.0, 300.0))
    assert counts == [1, 1]
    assert not labels.any()
    labels, _ = segmentation.segment(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8), (150.0,))
    assert np.bincount(labels.ravel()).min() >= segmentation.MIN_SIZE
