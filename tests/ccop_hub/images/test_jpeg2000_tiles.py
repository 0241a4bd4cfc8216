import io
import struct

import pytest
from PIL import Image

from ccop_hub.images.jpeg2000_tiles import count_tiles


def encoded(**options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20)).save(buffer, "JPEG2000", **options)
    return buffer.getvalue()


def test_tiles_are_counted_with_and_without_boxes():
    assert count_tiles(io.BytesIO(encoded())) == 1
    assert count_tiles(io.BytesIO(encoded(tile_size=(16, 8)))) == 9
    assert count_tiles(io.BytesIO(encoded(tile_size=(16, 8), no_jp2=True))) == 9


def test_boxes_before_the_codestream_hide_nothing():
    whole = encoded(tile_size=(16, 8))
    at = whole.index(b"jp2c") - 4
    decoy = whole[at + 8 :].replace(struct.pack(">II", 16, 8), struct.pack(">II", 40, 20), 1)
    short = struct.pack(">I4s", 8 + len(decoy), b"free") + decoy
    long = struct.pack(">I4sQ", 1, b"free", 16 + len(decoy)) + decoy
    file = io.BytesIO(whole[:at] + short + long + whole[at:])
    file.seek(5)
    assert count_tiles(file) == 9
    assert file.tell() == 5


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[: data.index(b"jp2c") - 4], "no JPEG 2000 codestream"),
        (lambda data: data[: data.index(b"\xff\x51") + 20], "truncated"),
        (lambda data: data.replace(struct.pack(">II", 16, 8), bytes(8), 1), "without tiles"),
        (lambda data: data.replace(b"\0\3\7\1\1", b"\x40\0\7\1\1", 1), "16384 channels"),
    ],
)
def test_damaged_headers_are_refused(damage, reason):
    with pytest.raises(ValueError, match=reason):
        count_tiles(io.BytesIO(damage(encoded(tile_size=(16, 8)))))
