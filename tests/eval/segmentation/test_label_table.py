from pathlib import Path

import pytest
from ccop_eval.segmentation.label_table import IGNORED, make_table, parse_label_map, read_names

from ccop_hub.errors import UserError


@pytest.fixture
def named(tmp_path):
    """Function that writes `classes.txt` and returns its path."""

    def write(*names):
        (tmp_path / "classes.txt").write_text("\n".join(names) + "\n")
        return tmp_path / "classes.txt"

    return write


def table(names, *values, ignore=(), label_map=()):
    present = {Path(f"labels/{number}.png"): found for number, found in enumerate(values)}
    return make_table(names, present, ignore, parse_label_map(label_map))


@pytest.mark.parametrize("named_classes", [(), ("ground", "object")])
def test_masks_of_0_and_255_are_refused_until_they_are_mapped(named, tmp_path, named_classes):
    names = named(*named_classes) if named_classes else tmp_path / "absent.txt"
    with pytest.raises(UserError, match=r"values 0, 255, of which 255 is ignored.*--label-map 255:1"):
        table(names, [0, 255], [0])
    mapped = table(names, [0, 255], [0], label_map=["255:1"])
    assert mapped.ids == [0, 1]
    assert mapped.classes == list(named_classes or ("class 0", "class 1"))
    lookup = mapped.lookup()
    assert (lookup[0], lookup[255], lookup[1], lookup[7]) == (0, 1, 1, IGNORED)


def test_class_that_no_label_shows_is_refused_until_it_is_left_out(named):
    names = named("ground", "object", "sky")
    with pytest.raises(UserError, match=r"'sky' \(id 2\).*no label shows.*values 0, 1, 255.*--ignore 2"):
        table(names, [0, 1], [1, 255])
    assert table(names, [0, 1], ignore=[2]).classes == ["ground", "object"]
    assert table(names, [0], [1, 2]).classes == ["ground", "object", "sky"], "another label shows it"


def test_id_without_a_name_is_refused_with_its_file(named):
    with pytest.raises(UserError, match=r"labels/1\.png has id 128, but .* names 2 classes .*--label-map"):
        table(named("ground", "object"), [0, 1], [0, 128])
    assert table(named("ground", "object"), [0, 128], label_map=["128:1"]).ids == [0, 1]


def test_one_class_measures_nothing(tmp_path):
    with pytest.raises(UserError, match="fewer than two classes"):
        table(tmp_path / "absent.txt", [3])
    with pytest.raises(UserError, match="fewer than two classes"):
        table(tmp_path / "absent.txt", [3, 4], ignore=[4])


@pytest.mark.parametrize("pair", ["255", "255:", "256:1", "1:300", "a:b", "-1:2", "1:2:3"])
def test_wrong_map_is_refused(pair):
    with pytest.raises(UserError, match=r"--label-map .*0 to 255"):
        parse_label_map([pair])


def test_map_of_one_value_to_two_ids_is_refused():
    assert parse_label_map(["255:1", " 128:1"]) == {255: 1, 128: 1}
    with pytest.raises(UserError, match="255 twice"):
        parse_label_map(["255:1", "255:2"])


def test_names_are_read_with_a_byte_order_mark_and_once_each(named, tmp_path):
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfground\r\nobject\r\n")
    assert read_names(tmp_path / "marked.txt") == ["ground", "object"]
    with pytest.raises(UserError, match="'cat' twice"):
        read_names(named("cat", "dog", "cat"))
    (tmp_path / "latin.txt").write_bytes("Bäume\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read_names(tmp_path / "latin.txt")


def test_names_that_cannot_be_read_are_not_ignored(tmp_path):
    names = tmp_path / "classes.txt"
    names.symlink_to("elsewhere.txt")
    with pytest.raises(UserError, match=r"cannot read .*classes\.txt"):
        table(names, [0, 1])
    names.unlink()
    names.write_text("\n \n")
    with pytest.raises(UserError, match="names no class"):
        table(names, [0, 1])
    names.write_text("sky\nro\x85ad\n", encoding="utf-8")
    assert read_names(names) == ["sky", "ro\x85ad"], "only line feeds and carriage returns end a line"


def test_more_names_than_label_images_have_values_are_refused(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(map(str, range(256))))
    assert len(read_names(path)) == 256
    path.write_text("\n".join(map(str, range(100_000))))
    with pytest.raises(UserError, match=r"classes\.txt names 100000 classes: label images have at most 256"):
        read_names(path)
