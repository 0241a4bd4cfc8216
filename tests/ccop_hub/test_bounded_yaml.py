import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ccop_hub.bounded_yaml import MAX_BYTES, MAX_DEPTH, MAX_VALUES, dump_yaml, read_yaml
from ccop_hub.console.config import read_config
from ccop_hub.errors import UserError
from ccop_hub.saved_settings import read_settings

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{n}: &a{n} {{<<: [{f'*a{n - 1}, ' * 8}]}}\n" for n in range(1, 12))

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.text(alphabet="\x85\u2028\u2029\ufeff\r\n\t \x00\x1b\udce9:#-'\"", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_documents_are_those_of_pyyaml(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text("\ufeffone: 1\ntwo: &t [a, 1.5e+2]\n\nthree: {<<: {x: 1}, y: *t}\n", encoding="utf-8")
    content, lines = read_yaml(path)
    assert content == {"one": 1, "two": ["a", 150.0], "three": {"x": 1, "y": ["a", 150.0]}}
    assert lines == {"one": 1, "two": 2, "three": 4}
    path.write_text("")
    assert read_yaml(path) == (None, {})


@pytest.mark.parametrize("text", ["255:1", "010", "1:30.5", "2024-11-27", "0b11", "0o10", "1e-3", "12:30:45"])
def test_numbers_and_dates_of_yaml_1_1_are_text(tmp_path: Path, text: str):
    (tmp_path / "a.yaml").write_text(f"a: {text}\n")
    assert read_yaml(tmp_path / "a.yaml")[0] == {"a": text}


@pytest.mark.parametrize("value", [0, -12, 1_000, 0x1F, 0.5, -1.5e-7, 1e22, float("inf"), True, None])
def test_other_values_are_those_of_pyyaml(tmp_path: Path, value: object):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"a": value}))
    assert read_yaml(tmp_path / "a.yaml")[0] == {"a": value}


def test_json_with_tabs_is_yaml(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps({"a": 1, "b": ["c\td"]}, indent="\t"))
    assert read_yaml(tmp_path / "a.json") == ({"a": 1, "b": ["c\td"]}, {"a": 2, "b": 3})


@settings(max_examples=30, deadline=None)
@given(document=PLAIN)
def test_whatever_is_dumped_is_read_back(document, tmp_path_factory):
    path = tmp_path_factory.mktemp("yaml") / "a.yaml"
    text = dump_yaml(document)
    path.write_text(text, encoding="utf-8", newline="")
    assert read_yaml(path)[0] == yaml.safe_load(text) == document


@settings(max_examples=50, deadline=None)
@given(text=st.text(alphabet="ab:-[]{}&*!|>%@'\"?,#\n 0123<~", max_size=30))
def test_any_text_is_a_document_or_one_line(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("yaml") / "a.yaml"
    path.write_text(text, encoding="utf-8")
    told = ""
    try:
        read_yaml(path)
    except UserError as error:
        told = str(error)
    assert "\n" not in told
    assert told == "" or str(path) in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LAUGHS, f"{MAX_VALUES:,} values"),
        (MERGES, f"{MAX_VALUES:,} values"),
        ("a: " + "[" * 100_000, f"{MAX_DEPTH} deep"),
        ("".join(" " * n + "a:\n" for n in range(600)), f"{MAX_DEPTH} deep"),
        ("a: &x [*x]", "contains itself"),
        ("a: &x {<<: *x}", "contains itself"),
        ("a: " + "1:" * 100_000 + "1", "characters"),
        ("a: !!int ''", "not YAML"),
        ("a: !!timestamp 2001-99-99", "not YAML"),
        ("b: 1\na: 1\na: 1", "a.yaml:3 is not YAML: 'a' is there twice"),
        ("a: {b: 1, b: 2}", "a.yaml:1 is not YAML: 'b' is there twice"),
        ("a: !!bool maybe", "not YAML"),
        ("a: " + "9" * 10_000, "not YAML"),
        ("a: !!python/object/apply:os.system [id]", "a.yaml:1 is not YAML"),
        ("a: b\nc: [", ":2 is not YAML"),
    ],
)
def test_hostile_documents_are_refused_in_one_line(tmp_path: Path, text: str, told: str):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    for read in (read_yaml, read_settings, lambda file: read_config("painter", file, ["a"])):
        with pytest.raises(UserError) as caught:
            read(path)
        assert told in str(caught.value)
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 400


def test_a_fifo_and_a_large_file_are_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_text("a: b\n" * (MAX_BYTES // 5 + 1))
    for name, told in (("fifo", "FIFO"), ("large", "larger than 0.25 MiB")):
        with pytest.raises(OSError, match=told):
            read_yaml(tmp_path / name)
