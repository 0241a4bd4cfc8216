import numpy as np
import pytest
from ccop_pretrain.proposals.fast_search import regions


def numbered(labels: np.ndarray) -> np.ndarray:
    """Renumber labels in order of first appearance, as in a segmentation."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(labels.shape)]


def blocks(height: int, width: int, side: int) -> np.ndarray:
    rows, columns = np.arange(height)[:, None] // side, np.arange(width) // side
    return numbered(rows * 1000 + columns)


# The last one has more cells than one counting pass handles.
@pytest.mark.parametrize(("height", "width", "sides", "channels"), [(20, 31, (4, 7, 9), 3), (90, 100, (2, 3), 1)])
def test_histograms_sizes_boxes_and_neighbours(height: int, width: int, sides: tuple[int, ...], channels: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([blocks(height, width, side) for side in sides]).astype(np.int32)
    image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    bins = rng.integers(0, 20, (height * width, 4 * channels), dtype=np.uint8)
    described = regions.describe(labels, [int(label.max()) + 1 for label in labels], image, bins)
    flat = image.reshape(-1, channels).astype(int)
    positive, negative = np.where(bins >= 10, bins.astype(int) - 10, 0), np.where(bins >= 10, 9, bins)
    for label, found in zip(labels, described, strict=True):
        for region in range(len(found.size)):
            inside = (label == region).ravel()
            y, x = np.nonzero(label == region)
            assert found.size[region] == inside.sum()
            assert found.box[region].tolist() == [x.min(), y.min(), x.max(), y.max()]
            expected = [np.bincount(flat[inside, c] * 25 // 256, minlength=25) for c in range(channels)]
            for j in range(4 * channels):
                expected += [np.bincount(part[inside, j], minlength=10) for part in (positive, negative)]
            assert found.counts[region].tolist() == np.concatenate(expected).tolist()
        touching = set()
        for y in range(1, height):
            for x in range(1, width):
                for other in (label[y, x - 1], label[y - 1, x], label[y - 1, x - 1]):
                    if other != label[y, x]:
                        touching.add((min(other, label[y, x]), max(other, label[y, x])))
        pairs = [tuple(pair) for pair in found.neighbours.tolist()]
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == touching


def test_one_region_has_no_neighbours() -> None:
    image, bins = np.zeros((5, 6, 3), np.uint8), np.zeros((30, 12), np.uint8)
    (found,) = regions.describe(np.zeros((1, 5, 6), np.int32), [1], image, bins)
    assert found.neighbours.shape == (0, 2)
    assert found.size.tolist() == [30]
    assert found.box.tolist() == [[0, 0, 5, 4]]
