import math
import os
import pickle
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ccop_hub.errors import UserError
from ccop_hub.images import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    UnreadableImageError,
    read_header,
    read_rgb,
)
from ccop_hub.images.jpeg2000_tiles import TILE_COST

RED, BLUE = (200, 30, 20), (10, 40, 220)


def halves(width: int = 40, height: int = 20) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def close(pixel: tuple[int, ...], expected: tuple[int, ...], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, expected, strict=True))


FORMATS = [".jpg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".bmp", ".dib", ".gif", ".ppm", ".pnm", ".jp2", ".j2k"]


@pytest.mark.parametrize("suffix", [*FORMATS, ".avif", ".qoi", ".pcx", ".tga"])
def test_formats_read_as_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    assert suffix in IMAGE_SUFFIXES
    try:
        halves().save(path)
    except (OSError, ValueError, KeyError) as error:
        pytest.skip(f"this Pillow does not write {suffix}: {error}")
    image = read_rgb(path)
    assert image.mode == "RGB"
    assert image.size == (40, 20)
    assert close(image.getpixel((5, 10)), RED)
    assert close(image.getpixel((35, 10)), BLUE)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_orientation_turns_the_picture_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    # How an upright picture is stored with each EXIF orientation.
    stored_by = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = halves()
    upright.paste((0, 255, 0), (0, 0, 10, 6))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image{suffix}"
    (upright.transpose(stored_by) if stored_by is not None else upright).save(path, exif=exif)
    image = read_rgb(path)
    assert image.size == (40, 20)
    assert close(image.getpixel((4, 2)), (0, 255, 0), 40)
    assert close(image.getpixel((5, 15)), RED, 40)
    assert close(image.getpixel((35, 10)), BLUE, 40)


def test_grey_has_three_equal_channels(tmp_path: Path) -> None:
    Image.new("L", (8, 6), 77).save(tmp_path / "grey.png")
    assert read_rgb(tmp_path / "grey.png").getpixel((3, 3)) == (77, 77, 77)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_scaled_to_the_whole_range(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257 * 100, 257 * 200 + 100, 65535]], dtype=np.uint16)
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(values).save(path)
    assert np.asarray(read_rgb(path))[0, :, 0].tolist() == [0, 100, 200, 255]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    assert close(read_rgb(tmp_path / "print.jpg").getpixel((8, 8)), (255, 0, 0), 16)


def test_palette_is_looked_up(tmp_path: Path) -> None:
    halves().quantize(4).save(tmp_path / "palette.png")
    assert close(read_rgb(tmp_path / "palette.png").getpixel((35, 10)), BLUE)


def test_alpha_is_composited_over_white(tmp_path: Path) -> None:
    pixels = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    pixels.putpixel((1, 0), (100, 0, 0, 128))
    pixels.putpixel((2, 0), (100, 0, 0, 255))
    pixels.save(tmp_path / "cutout.png")
    image = read_rgb(tmp_path / "cutout.png")
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert close(image.getpixel((1, 0)), (177, 127, 127), 1)
    assert image.getpixel((2, 0)) == (100, 0, 0)


def test_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([9, 9, 9, 200, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png", transparency=0)
    assert np.asarray(read_rgb(tmp_path / "palette.png"))[0].tolist() == [[255, 255, 255], [200, 0, 0]]


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_first_frame_of_several(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", (20, 20), RED), Image.new("RGB", (20, 20), BLUE)
    first.save(tmp_path / f"moving{suffix}", save_all=True, append_images=[second])
    assert close(read_rgb(tmp_path / f"moving{suffix}").getpixel((10, 10)), RED)


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (1, 1)])
def test_one_pixel_wide(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, RED).save(tmp_path / "line.png")
    assert read_rgb(tmp_path / "line.png").size == size


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp", ".gif"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_file_is_unreadable(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    noise().save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UnreadableImageError) as raised:
        read_rgb(path)
    assert raised.value.path == path
    assert raised.value.reason
    assert "\n" not in raised.value.reason


def test_reasons_name_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "script.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.new("F", (4, 4)).save(tmp_path / "float.tif")
    reasons = {}
    for name in ("empty.jpg", "text.jpg", "script.jpg", "float.tif", "absent.jpg"):
        with pytest.raises(UnreadableImageError) as raised:
            read_rgb(tmp_path / name)
        reasons[name] = raised.value.reason
    assert reasons["empty.jpg"] == "empty file"
    assert "not an image" in reasons["text.jpg"]
    assert "not an image" in reasons["script.jpg"]
    assert "floating-point" in reasons["float.tif"]
    assert "No such file" in reasons["absent.jpg"]


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    Image.new("1", (10_000, 9_000)).save(tmp_path / "large.png")
    for name in ("bomb.png", "large.png"):
        with pytest.raises(UnreadableImageError, match="pixels"):
            read_rgb(tmp_path / name)
    halves().save(tmp_path / "small.png")
    with pytest.raises(UnreadableImageError, match=r"40 x 20 pixels, more than the limit of 799"):
        read_rgb(tmp_path / "small.png", max_pixels=799)
    assert read_rgb(tmp_path / "small.png", max_pixels=800).size == (40, 20)
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_the_limit_may_exceed_pillows_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses more than twice this
    halves().save(tmp_path / "image.png")
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "image.png")
    assert read_rgb(tmp_path / "image.png", max_pixels=800).size == (40, 20)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(UnreadableImageError, match="limit of 799"):
        read_rgb(tmp_path / "image.png", max_pixels=799)


def test_sixteen_bit_colour_is_scaled(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    colour = np.array([200, 100, 0], dtype=np.uint16) * 257
    for name in ("deep.png", "deep.tiff"):
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), colour[::-1], dtype=np.uint16))
        assert read_rgb(tmp_path / name).getpixel((4, 4)) == (200, 100, 0)


def test_damaged_metadata_does_not_cost_the_picture(tmp_path: Path) -> None:
    halves().save(tmp_path / "image.jpg", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff\x12\x01")
    assert read_rgb(tmp_path / "image.jpg").size == (40, 20)


def test_error_crosses_process_borders() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImageError(Path("a/b.jpg"), "two\nlines")))
    assert (error.path, error.reason) == (Path("a/b.jpg"), "two lines")


def test_an_error_that_nobody_skips_names_the_file_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.jpg: No such file or directory; replace or remove it"):
        read_rgb(tmp_path / "absent.jpg")


def test_a_dangling_link_names_its_target(tmp_path: Path) -> None:
    (tmp_path / "annexed.jpg").symlink_to("../annex/3f2a")
    with pytest.raises(UnreadableImageError, match=r"a link to \.\./annex/3f2a, which does not exist"):
        read_rgb(tmp_path / "annexed.jpg")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX's special files")
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")  # opening it would block forever
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")  # reading it never ends
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.jpg"))
        for name, kind in {"fifo": "a FIFO", "zero": "a device", "folder": "a folder", "socket": "a socket"}.items():
            with pytest.raises(UnreadableImageError, match=f"{kind}, not a regular file"):
                read_rgb(tmp_path / f"{name}.jpg")
    with pytest.raises(UnreadableImageError, match="levels of symbolic links"):
        read_rgb(tmp_path / "loop.jpg")


@pytest.mark.parametrize("kind", ["compressed", "plain", "international", "profile", "after the pixels"])
def test_png_with_megabytes_of_metadata(tmp_path: Path, kind: str) -> None:
    info, options = PngImagePlugin.PngInfo(), {}
    if kind == "profile":
        options = {"icc_profile": b"\0" * 1_600_000}
    elif kind == "international":
        info.add_itxt("parameters", "x" * 2_000_000, zip=True)
    else:
        info.add_text("parameters", "x" * (80_000_000 if kind == "plain" else 2_000_000), zip=kind != "plain")
    image = halves()
    exif = Image.Exif()
    exif[0x0112] = 3
    image.save(tmp_path / "image.png", pnginfo=info, exif=exif, **options)
    if kind == "after the pixels":
        chunks = png_chunks(tmp_path / "image.png")
        chunks.sort(key=lambda chunk: (chunk[4:8] == b"IEND", chunk[4:8] == b"zTXt"))
        (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    found = read_rgb(tmp_path / "image.png")
    assert found.getpixel((5, 10)) == BLUE  # upright: the orientation was applied
    assert found.getpixel((35, 10)) == RED


def png_chunks(path: Path) -> list[bytes]:
    data, chunks, place = path.read_bytes(), [], 8
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        chunks.append(data[place:end])
        place = end
    return chunks


def test_images_are_charged_for_the_memory_they_take(tmp_path: Path) -> None:
    """With the same limit, a decoder that needs two extra copies of an image may read fewer pixels."""
    for suffix, factor in {".png": 1, ".webp": 18 / 8, ".jp2": 25 / 8}.items():
        path = tmp_path / f"image{suffix}"
        halves().save(path)
        whole = path.stat().st_size if suffix == ".webp" else 0  # Pillow reads the file into memory
        counted = math.ceil(800 * factor + whole / 8)
        assert read_rgb(path, max_pixels=counted).size == (40, 20)
        with pytest.raises(UnreadableImageError, match=f"limit of {counted - 1}"):
            read_rgb(path, max_pixels=counted - 1)


def test_images_are_charged_for_the_time_that_decoders_in_python_take(tmp_path: Path) -> None:
    pixels = bytes(range(240)) * 10  # 40 x 20, RGB
    variants = {
        "of 255.ppm": (b"P6 40 20 255\n" + pixels, 1),
        "of 254.ppm": (b"P6 40 20 254\n" + pixels, 40),
        "plain.ppm": (b"P3 40 20 255\n" + b" ".join(b"%d" % value for value in pixels), 40),
        "run.qoi": (b"qoif" + struct.pack(">IIBB", 40, 20, 3, 0) + b"\xc0" * 800 + bytes(7) + b"\1", 40),
    }
    for name, (content, factor) in variants.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert read_rgb(path, max_pixels=800 * factor).size == (40, 20)
        with pytest.raises(UnreadableImageError, match=f"limit of {800 * factor - 1}"):
            read_rgb(path, max_pixels=800 * factor - 1)


def test_tiny_tiles_are_charged_for(tmp_path: Path) -> None:
    path = tmp_path / "tiles.jp2"
    halves().save(path, tile_size=(4, 4))
    counted = (800 * 25 + 49 * TILE_COST) // 8
    assert read_rgb(path, max_pixels=counted).size == (40, 20)
    with pytest.raises(UnreadableImageError, match=f"limit of {counted - 1}"):
        read_rgb(path, max_pixels=counted - 1)


def test_data_that_never_becomes_pixels_is_not_read_to_its_end(tmp_path: Path) -> None:
    rows = tmp_path / "rows.bmp"
    Image.new("P", (4, 4)).save(rows)
    header = bytearray(rows.read_bytes()[:1078])
    header[30] = 1  # run-length encoding
    rows.write_bytes(bytes(header) + b"\0\0" * 600_000)  # ends of lines
    with pytest.raises(UnreadableImageError, match="blocks"):
        read_rgb(rows)
    plain = tmp_path / "comments.ppm"
    plain.write_bytes(b"P3 1 1 255\n" + b"#\n" * 5000 + b"1 2 3")
    with pytest.raises(UnreadableImageError, match="comments"):
        read_rgb(plain)


PEAK = """
import sys
from pathlib import Path
from ccop_hub.images import read_rgb

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

read_rgb(Path(sys.argv[1]))
before = peak()
image = read_rgb(Path(sys.argv[2]))
print((peak() - before) / (image.width * image.height))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process its peak memory")
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16", "P", "CMYK"])
def test_every_mode_takes_about_the_memory_of_rgb(tmp_path: Path, mode: str) -> None:
    side = 3000
    if mode == "I;16":
        image = Image.fromarray(np.zeros((side, side), dtype=np.uint16))
    else:
        image = Image.new(mode, (side, side))
    path = tmp_path / ("large.tif" if mode == "CMYK" else "large.png")
    image.save(path)
    halves().save(tmp_path / f"small{path.suffix}")
    words = [sys.executable, "-c", PEAK, str(tmp_path / f"small{path.suffix}"), str(path)]
    found = float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert found < 12  # bytes per pixel: 8 for two copies of RGB, plus one strip's intermediate copies


@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 20)), (3, (40, 20)), (6, (20, 40)), (7, (20, 40))])
def test_the_size_is_that_of_the_upright_image(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    halves().save(tmp_path / "image.jpg", exif=exif)
    assert read_header(tmp_path / "image.jpg").upright == read_rgb(tmp_path / "image.jpg").size == size


def test_heif_where_its_plugin_is_installed(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    halves().save(tmp_path / "phone.heic")
    assert ".heic" in IMAGE_SUFFIXES
    assert close(read_rgb(tmp_path / "phone.heic").getpixel((5, 10)), RED)
