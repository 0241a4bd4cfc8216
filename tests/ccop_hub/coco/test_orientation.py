import numpy as np
import pytest
from PIL import Image, ImageOps

from ccop_hub.coco.masks import from_pixels, to_pixels
from ccop_hub.coco.orientation import turn_box, turn_mask

WIDTH, HEIGHT = 7, 5
BOX = (1.0, 2.0, 3.0, 2.0)


def pixels() -> np.ndarray:
    found = np.zeros((HEIGHT, WIDTH), dtype=bool)
    found[2:4, 1:4] = True
    return found


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_and_masks_turn_as_pillow_turns_the_image(orientation: int) -> None:
    image = Image.fromarray(pixels().astype(np.uint8) * 255)
    image.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image)) > 0
    mask = turn_mask(from_pixels(pixels()), orientation, (WIDTH, HEIGHT))
    assert isinstance(mask, dict)
    assert (to_pixels(mask) == upright).all()
    x, y, width, height = (int(value) for value in turn_box(BOX, orientation, (WIDTH, HEIGHT)))
    from_box = np.zeros_like(upright)
    from_box[y : y + height, x : x + width] = True
    assert (from_box == upright).all()
    (polygon,) = turn_mask([[1, 2, 4, 2, 4, 4, 1, 4]], orientation, (WIDTH, HEIGHT))
    assert (min(polygon[::2]), min(polygon[1::2])) == (x, y)
    assert (max(polygon[::2]), max(polygon[1::2])) == (x + width, y + height)
