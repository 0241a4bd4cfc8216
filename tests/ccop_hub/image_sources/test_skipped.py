from pathlib import Path

import pytest

from ccop_hub.errors import UserError
from ccop_hub.image_sources.skipped import SkippedImages, require_readable


def test_skipped_images_are_counted_and_named(tmp_path: Path) -> None:
    skipped = SkippedImages()
    assert skipped.summary() == "no image skipped"
    for name in ("d", "b", "c", "a"):
        skipped.add(f"{name}.jpg", f"reason {name}, with a comma")
    assert len(skipped) == 4
    assert "c.jpg" in skipped
    assert "z.jpg" not in skipped
    assert skipped.summary(shown=1) == "4 images skipped: a.jpg (reason a, with a comma); and 3 more"
    skipped.write_csv(tmp_path / "out" / "skipped.csv")
    lines = (tmp_path / "out" / "skipped.csv").read_text().splitlines()
    assert lines[:2] == ["image,reason", 'a.jpg,"reason a, with a comma"']
    assert len(lines) == 5


def test_a_name_that_is_not_utf8_can_be_printed() -> None:
    skipped = SkippedImages()
    skipped.add("caf\udce9.jpg", "cut short")
    assert skipped.summary().encode() == b"1 image skipped: caf\\udce9.jpg (cut short)"


def test_too_many_unreadable_images_are_refused() -> None:
    skipped = SkippedImages()
    require_readable(skipped, 10, 0.0)
    for name in range(29):
        skipped.add(f"{name:02d}.jpg", "cut short")
    require_readable(skipped, 100, 0.29)
    with pytest.raises(UserError, match=r"29 of 99 images cannot be used.*00\.jpg \(cut short\).*and 26 more"):
        require_readable(skipped, 99, 0.29)
