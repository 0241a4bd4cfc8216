import json
import math
from pathlib import Path
from typing import Any

import pytest

from ccop_hub.coco import json_stream
from ccop_hub.coco.json_stream import stream_entries
from ccop_hub.errors import UserError

DOCUMENT: dict[str, Any] = {
    "info": {"images": [1, 2], "nested": {"a": [{}]}},
    "images": [
        {"id": 1, "file_name": "é}{.jpg"},
        {"id": 2, "file_name": 'a"},{.jpg', "more": {"x": {}}},
        7,
        [{"y": 1}],
    ],
    "annotations": [{"id": 5, "segmentation": {"size": [1, 2], "counts": "}"}}, {"id": 6}],
    "licenses": None,
}


def read(path: Path, *wanted: str) -> list[tuple[str, int, Any]]:
    return list(stream_entries(path, wanted))


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("chunk", [1 << 18, 5])
def test_entries_come_one_by_one_in_any_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, indent: int | None, chunk: int
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(DOCUMENT, ensure_ascii=False, indent=indent).encode(encoding))
    assert read(path, "images") == [("images", place, entry) for place, entry in enumerate(DOCUMENT["images"])]
    assert read(path, "annotations", "licenses") == [
        ("annotations", place, entry) for place, entry in enumerate(DOCUMENT["annotations"])
    ]


def test_numbers_that_json_does_not_have_come_as_floats(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        '{"annotations": [{"id": 1, "x": [NaN, -Infinity, 1e999, 123456789012345678901234567890]}, {"id": 2}]}'
    )
    (_, _, first), (_, _, second) = read(path, "annotations")
    assert math.isnan(first["x"][0])
    assert first["x"][1:] == [-math.inf, math.inf, pytest.approx(1.2345678901234568e29)]
    assert second == {"id": 2}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n", "is empty|no JSON object"),
        (b"[{}]", "line 1 column 1: a list where COCO has an object"),
        (b"image,box", "line 1 column 1: no JSON object"),
        (b'{"images": {"a": 1}}', "'images' is an object, not a list"),
        (b'{"images": "a"}', "'images' is a text, not a list"),
        (b'{"images": [{"id": 1}', r"line 1 column 22.*: the file ends here"),
        (b'{"images": [{"id": 1, "file_name": "a', "entry 0 of 'images': the file ends here"),
        (b'{"images": [{"id": 1}]', "the file ends here"),
        (b'{"images": [{"id": 1},]}', "a comma before a closing bracket"),
        (b'{"images": [{"id": 1}],}', "a comma before a closing brace"),
        (b'{"images": [{"id": 1} {"id": 2}]}', "where ',' is due"),
        (b'{"images": [\n{"id": 1},\n{"id": 2,}]}', "line 3 column 10 in entry 1 of 'images'"),
        (b'{"images": []}{"images": []}', "line 1 column 15: more text after the end"),
        (
            b'{"images": [{"id": 1, "file_name": "\xe9.jpg"}]}',
            "line 1 column 37 in entry 0 of 'images': byte 0xe9 is not",
        ),
        ('{"images": ['.encode("utf-16")[:-1], "utf-16"),
        (b'{"images": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"info": ' + b"[" * 100_000 + b"]" * 99_999, "the file ends here"),
        (b'{"info": {"a": "}", "b', "the file ends here"),
        (b'{"images": [' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"]}", "nested too deeply"),
        (b'{"x": ' + b"1" * 5000 + b"}", "thousands of digits"),
        (b"\x1f\x8b\x08\x00", "is compressed: decompress it"),
    ],
)
def test_what_is_no_coco_json_is_one_line_with_its_place(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told) as caught:
        read(path, "images", "annotations")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_entry_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "MAX_ENTRY", 1 << 20)
    path = tmp_path / "a.json"
    for content in (b'{"images": [{"a": "' + b"x" * (8 << 20), b'{"images": [{"a": [' + b"1," * (4 << 20)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="an entry of more than 1 MB"):
            read(path, "images")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*a\.json \(No such file"):
        read(tmp_path / "a.json", "images")
    with pytest.raises(UserError, match=r"cannot read .* \(a folder"):
        read(tmp_path, "images")


@pytest.mark.parametrize("chunk", [*range(4, 12), 1 << 18])
def test_what_nobody_reads_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    odd = ['\\"]', "\\\\", '"', "}]", "", '\\\\"', "é]"]
    unread = {"a": odd, "b": [{"c": odd}, [], [[]], 1, None], **dict.fromkeys(odd, odd)}
    document = {"info": unread, "images": [{"id": 1}], "licences": odd, "categories": [2]}
    for ascii in (True, False):
        path.write_text(json.dumps(document, ensure_ascii=ascii), "utf-8")
        assert read(path, "images", "categories") == [("images", 0, {"id": 1}), ("categories", 0, 2)]
    path.write_text('{"info": ' + "[" * 100_000 + "]" * 100_000 + ', "images": [3]}')
    monkeypatch.setattr(json_stream, "_CHUNK", 1 << 18)
    assert read(path, "images") == [("images", 0, 3)]


def test_braces_and_quotes_inside_strings_do_not_end_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["}", "{", "{{{", "}}}}}}}}}}}}", '{"', '\\"}', "\\\\", "\\", '{\\\\"{', "é{"]
    entries = [{"id": place, "name": name, "more": {name: [{}]}} for place, name in enumerate(names)]
    entries += [{"id": place, "name": name} for place, name in enumerate(names)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": entries, "annotations": [{"x": math.nan, "more": {"{": 1}}, {"id": 6}]}))
    for chunk in (1 << 18, 1):
        monkeypatch.setattr(json_stream, "_CHUNK", chunk)
        assert [entry for _, _, entry in read(path, "images")] == entries
        (_, _, first), (_, _, second) = read(path, "annotations")
        assert math.isnan(first["x"])
        assert (first["more"], second) == ({"{": 1}, {"id": 6})
