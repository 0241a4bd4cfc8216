"""Label images: what every variant of a mask is read as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ccop_hub.images import UnreadableImageError, read_class_ids, read_instance_ids

IDS = np.array([[0, 1, 255], [7, 7, 19]], dtype=np.uint8)


def palette() -> Image.Image:
    image = Image.fromarray(IDS, "P")
    image.putpalette([number // 3 for number in range(768)])
    return image


def channels(*extra: np.ndarray[Any, Any]) -> Image.Image:
    return Image.fromarray(np.dstack([IDS, IDS, IDS, *extra]))


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("grey.png", Image.fromarray(IDS)),
        ("palette.png", palette()),
        ("palette.bmp", palette()),
        ("grey.tif", Image.fromarray(IDS)),
        ("16-bit.png", Image.fromarray(IDS.astype(np.uint16))),
        ("32-bit.tif", Image.fromarray(IDS.astype(np.int32))),
        ("rgb.png", channels()),
        ("rgb.bmp", channels()),
        ("rgba.png", channels(np.full_like(IDS, 255))),
        ("grey-alpha.png", Image.fromarray(np.dstack([IDS, np.full_like(IDS, 255)]))),
    ],
)
def test_class_ids_are_read_as_they_are(tmp_path: Path, name: str, image: Image.Image) -> None:
    image.save(tmp_path / name)
    found = read_class_ids(tmp_path / name)
    assert found.dtype == np.uint8
    assert found.tolist() == IDS.tolist()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.new("RGB", (3, 2), (128, 0, 0)), "RGB pixels, not"),
        (channels(np.where(IDS == 7, 0, 255).astype(np.uint8)), "transparent"),
        (Image.fromarray(IDS.astype(np.uint16) * 257), "65535, but class ids are 0 to 255"),
        (Image.fromarray(IDS.astype(np.int32) - 1), "-1, but class ids are 0 to 255"),
        (Image.fromarray(IDS.astype(np.float32)), "F pixels, not"),
    ],
)
def test_what_has_no_class_ids_is_refused(tmp_path: Path, image: Image.Image, reason: str) -> None:
    image.save(tmp_path / "label.tif")
    with pytest.raises(UnreadableImageError, match=reason):
        read_class_ids(tmp_path / "label.tif")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"format": "JPEG", "quality": 100}, "JPEG does not keep ids"),
        ({"format": "TIFF", "compression": "jpeg"}, "jpeg compression does not keep ids"),
        ({"format": "WEBP", "lossless": True}, "WEBP does not keep ids"),
    ],
)
def test_lossy_formats_are_refused_whatever_the_suffix(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    Image.fromarray(IDS).save(tmp_path / "label.png", **options)
    for read in (read_class_ids, read_instance_ids):
        with pytest.raises(UnreadableImageError, match=named):
            read(tmp_path / "label.png")


def test_ids_that_decoding_would_change_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), np.dstack([IDS.astype(np.uint16)] * 3))  # Pillow keeps the upper 8 bits
    (tmp_path / "scaled.png").write_bytes(b"P5 3 2 19\n" + IDS.tobytes())  # Pillow scales 19 to 255
    for name in ("deep.png", "scaled.png"):
        with pytest.raises(UnreadableImageError, match=r"16-bit|PPM"):
            read_class_ids(tmp_path / name)


def test_instance_ids_have_more_than_8_bits_and_one_channel(tmp_path: Path) -> None:
    Image.fromarray(IDS.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert read_instance_ids(tmp_path / "deep.png").tolist() == (IDS.astype(int) * 257).tolist()
    channels().save(tmp_path / "colours.png")
    with pytest.raises(UnreadableImageError, match="RGB pixels, not"):
        read_instance_ids(tmp_path / "colours.png")
