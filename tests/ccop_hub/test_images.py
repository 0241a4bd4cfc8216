import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.images import MAX_PIXELS, UnreadableImageError, list_images, read_rgb

RED, BLUE = (200, 30, 20), (10, 40, 220)


def halves(width: int = 40, height: int = 20) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def close(pixel: tuple[int, ...], expected: tuple[int, ...], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, expected, strict=True))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_formats_read_as_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    halves().save(path)
    image = read_rgb(path)
    assert image.mode == "RGB"
    assert image.size == (40, 20)
    assert close(image.getpixel((5, 10)), RED)
    assert close(image.getpixel((35, 10)), BLUE)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_orientation_turns_the_picture_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    # How the upright picture is stored under each orientation, by the EXIF table.
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
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many
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


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_listing_is_sorted_relative_and_recursive(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/z.jpeg", "a.jpg", "a/b/c.tiff", "B.webp", "note.txt", ".hidden.jpg", ".git/x.jpg"):
        touch(tmp_path / name)
    (tmp_path / "folder.jpg").mkdir()
    assert list_images(tmp_path) == ["B.webp", "a.jpg", "a/b/c.tiff", "a/z.jpeg", "b.PNG"]


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    touch(root / "z" / "real.jpg")
    touch(other / "linked.jpg")
    (root / "a-link-to-z").symlink_to(root / "z")
    (root / "z" / "loop").symlink_to(root)
    (root / "other").symlink_to(other)
    (other / "back").symlink_to(root)
    (root / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert list_images(root) == ["other/linked.jpg", "z/real.jpg"]


def test_no_listing_without_images(tmp_path: Path) -> None:
    touch(tmp_path / "note.txt")
    with pytest.raises(UserError, match="holds no image"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        list_images(tmp_path / "note.txt")
    with pytest.raises(UserError, match="does not exist"):
        list_images(tmp_path / "absent")
