import io
import struct
from pathlib import Path

import pytest
from PIL import Image, features

from ccop_hub.images import UnreadableImageError, bounded_reads, jpeg_scans, read_header, read_rgb
from ccop_hub.images.jpeg_scans import MAX_SCANS, Scans, read_scans

END = b"\xff\xd9"
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00"
"""A scan of the first component's coefficients 1 to 63, without data."""


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((40, 20), 90).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def frame(kind: int, *components: tuple[int, int]) -> bytes:
    fields = b"".join(bytes([number, wide << 4 | high, 0]) for number, (wide, high) in enumerate(components, 1))
    body = struct.pack(">BHHB", 8, 20, 40, len(components)) + fields
    return b"\xff\xd8" + struct.pack(">BBH", 0xFF, kind, 2 + len(body)) + body


def scan(*components: int) -> bytes:
    body = bytes([len(components), *(byte for number in components for byte in (number, 0)), 0, 63, 0])
    return b"\xff\xda" + struct.pack(">H", 2 + len(body)) + body + b"\x12\xff\x00\xff\xd0\x34"


@pytest.mark.parametrize(
    ("mode", "options", "expected"),
    [
        ("RGB", {}, Scans(1, 0)),
        ("CMYK", {}, Scans(1, 0)),
        ("L", {"progressive": True}, Scans(6, 2)),
        ("RGB", {"progressive": True, "subsampling": 0}, Scans(10, 6)),
        ("RGB", {"progressive": True, "subsampling": 2}, Scans(10, 3)),
        ("CMYK", {"progressive": True, "subsampling": 0}, Scans(18, 8)),
        ("RGB", {"progressive": True, "subsampling": 0, "exif": bytes(60_000), "restart_marker_rows": 1}, Scans(10, 6)),
    ],
)
def test_scans_and_coefficients_of_what_pillow_writes(mode: str, options: dict, expected: Scans) -> None:
    assert read_scans(io.BytesIO(jpeg(mode, **options))) == expected


def test_a_sequential_jpeg_of_several_scans_keeps_its_coefficients() -> None:
    one = frame(0xC0, (2, 2), (1, 1), (1, 1)) + scan(1, 2, 3) + END
    three = frame(0xC0, (2, 2), (1, 1), (1, 1)) + scan(1) + scan(2) + scan(3) + END
    assert read_scans(io.BytesIO(one)) == Scans(1, 0)
    assert read_scans(io.BytesIO(three)) == Scans(3, 3)


def test_only_markers_of_the_first_image_count() -> None:
    comment = b"\xff\xfe\x00\x08\xff\xda\xff\xd9\xff\xda"
    data = frame(0xC2, (1, 1)) + scan(1) + comment + b"\xff\xff" + scan(1) + END + scan(1) * 9
    file = io.BytesIO(data)
    file.seek(3)
    assert read_scans(file) == Scans(2, 2)
    assert file.tell() == 3
    for length in range(len(data)):  # damage ends the count
        assert read_scans(io.BytesIO(data[:length])).count <= 2


def test_thousands_of_scans_are_refused(tmp_path: Path) -> None:
    sound = jpeg(progressive=True)
    path = tmp_path / "bomb.jpg"
    for count in (MAX_SCANS - 10, 20_000):
        path.write_bytes(sound.removesuffix(END) + SCAN * count + END)
        if count < MAX_SCANS:
            assert read_rgb(path).size == (40, 20)
    with pytest.raises(UnreadableImageError, match=f"more than {MAX_SCANS} scans"):
        read_rgb(path)
    assert read_header(path).stored == (40, 20)


@pytest.mark.parametrize(
    ("mode", "options", "cost"), [("CMYK", {"subsampling": 0}, 12), ("RGB", {"subsampling": 2}, 8)]
)
def test_coefficients_are_charged(tmp_path: Path, mode: str, options: dict, cost: int) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg(mode, progressive=True, **options))
    counted = 800 * cost // 8
    assert read_rgb(path, max_pixels=counted).size == (40, 20)
    with pytest.raises(UnreadableImageError, match=f"limit of {counted - 1}"):
        read_rgb(path, max_pixels=counted - 1)


def padded(data: bytes, place: int, padding: bytes) -> bytes:
    return data[:place] + padding + data[place:]


def test_padding_and_empty_blocks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_reads, "MOST_READS", 1000)
    monkeypatch.setattr(jpeg_scans, "_MAX_SEGMENTS", 100)
    gif = io.BytesIO()
    Image.new("L", (40, 20)).save(gif, "GIF")
    head = 13 + 3 * (2 << (gif.getvalue()[10] & 7))  # after the palette
    sound, several = jpeg(), jpeg(progressive=True)
    files = {
        "filled.jpg": (padded(sound, 2, b"\xff" * 9000), "more than 1000 blocks"),
        "comments.jpg": (padded(several, several.rindex(b"\xff\xda"), b"\xff\xfe\x00\x02" * 200), "100 tables"),
        "between.jpg": (padded(sound, len(sound) // 2 + 100, b"\xff" * 300_000), "padding instead"),
        "blocks.gif": (padded(gif.getvalue(), head, b"!\xfe" + b"\x01x" * 9000 + b"\0"), "more than 1000 blocks"),
    }
    for name, (data, reason) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnreadableImageError, match=reason):
            read_rgb(tmp_path / name)
    (tmp_path / "sound.gif").write_bytes(padded(gif.getvalue(), head, b"!\xfe" + b"\xff" + b"x" * 255 + b"\0"))
    assert read_rgb(tmp_path / "sound.gif").size == (40, 20)


def test_decoders_that_raise_runtime_errors_name_the_file(tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow does not read AVIF")
    Image.effect_noise((40, 20), 90).save(tmp_path / "image.avif")
    data = (tmp_path / "image.avif").read_bytes()
    (tmp_path / "image.avif").write_bytes(padded(data, data.index(b"meta") - 4, struct.pack(">I4s", 8, b"free") * 9))
    with pytest.raises(UnreadableImageError, match=r"image\.avif: Failed to decode"):
        read_rgb(tmp_path / "image.avif")
