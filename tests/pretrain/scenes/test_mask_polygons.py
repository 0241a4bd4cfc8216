import numpy as np
import pytest
from ccop_pretrain.scenes.mask_polygons import mask_to_polygons

mask_util = pytest.importorskip("pycocotools.mask")


def decode(polygons: list[list[float]], shape: tuple[int, int]) -> np.ndarray:
    return mask_util.decode(mask_util.merge(mask_util.frPyObjects(polygons, *shape))).astype(bool)


def disc(shape: tuple[int, int], centre: tuple[int, int], radius: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


@pytest.mark.parametrize("holes", [0, 1, 3])
def test_masks_with_holes_come_back_exactly(holes: int) -> None:
    mask = disc((60, 90), (30, 40), 26)
    for index in range(holes):
        mask &= ~disc(mask.shape, (20 + 10 * index, 28 + 12 * index), 4.5)
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 1
    np.testing.assert_array_equal(decode(polygons, mask.shape), mask)


def test_parts_and_borders_come_back_exactly() -> None:
    mask = np.zeros((40, 50), bool)
    mask[:10, :12] = True
    mask[30:, 44:] = True
    mask[20, 20] = True
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 3
    np.testing.assert_array_equal(decode(polygons, mask.shape), mask)


def test_island_in_a_hole() -> None:
    mask = disc((60, 60), (30, 30), 25) & ~disc((60, 60), (30, 30), 15) | disc((60, 60), (30, 30), 6)
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 2
    np.testing.assert_array_equal(decode(polygons, mask.shape), mask)


def test_empty_mask_has_no_polygon() -> None:
    assert mask_to_polygons(np.zeros((5, 5), bool)) == []
