import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
import torch
from ccop_eval.frozen import features
from ccop_eval.frozen.features import cached_features
from lightning.fabric import Fabric

from ccop_hub.errors import UserError
from ccop_hub.files import files_digest


@pytest.fixture
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def named(rows):
    return [Path(f"{number}.png") for number in range(len(rows))]


def compute_squares(seen):
    def compute(items):
        for item in items:
            seen.append(item)
            yield torch.full((item % 3, 2), float(item) ** 2)

    return compute


def test_features_are_computed_once_and_mapped(fabric, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 4)
    rows, seen = [item % 3 for item in range(10)], []
    first = cached_features(fabric, tmp_path, {"weights": "a"}, named(rows), rows, compute_squares(seen))
    expected = np.repeat(np.arange(10.0) ** 2, rows)
    np.testing.assert_array_equal(first, np.stack([expected, expected], 1))
    assert isinstance(first, np.memmap)
    cached_features(fabric, tmp_path, {"weights": "a"}, named(rows), rows, compute_squares(seen))
    assert seen == list(range(10))
    cached_features(fabric, tmp_path, {"weights": "b"}, named(rows), rows, compute_squares(seen))
    assert len(seen) == 20, "other weights have features of their own"
    assert {json.loads(file.read_text())["weights"] for file in tmp_path.glob("*/identity.json")} == {"a", "b"}


def test_two_evaluations_at_once_compute_them_once(fabric, tmp_path):
    seen, started, go_on = [], threading.Event(), threading.Event()

    def slow(items):
        started.set()
        go_on.wait()
        yield from compute_squares(seen)(items)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cached_features, fabric, tmp_path, {}, named([0, 1, 2]), [0, 1, 2], slow)
        started.wait()
        second = pool.submit(cached_features, fabric, tmp_path, {}, named([0, 1, 2]), [0, 1, 2], compute_squares(seen))
        assert not wait([second], timeout=0.5).done
        go_on.set()
        np.testing.assert_array_equal(first.result(), second.result())
    assert seen == [0, 1, 2]


def test_interrupted_computation_keeps_what_it_has(fabric, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 3)
    seen, rows = [], [1] * 8

    def interrupted(items):
        for item in items:
            if item == 7:
                raise KeyboardInterrupt
            seen.append(item)
            yield torch.full((1, 1), float(item))

    with pytest.raises(KeyboardInterrupt):
        cached_features(fabric, tmp_path, {}, named(rows), rows, interrupted)
    again = []

    def rest(items):
        for item in items:
            again.append(item)
            yield torch.full((1, 1), float(item))

    values = cached_features(fabric, tmp_path, {}, named(rows), rows, rest)
    np.testing.assert_array_equal(values[:, 0], np.arange(8))
    assert again == [6, 7]


def test_what_a_killed_process_left_beside_its_features_is_removed(fabric, tmp_path, monkeypatch):
    def killed(path, content):
        (path.parent / f".{path.name}.0123abcd-7-0123abcd.partial").write_text(content)
        raise KeyboardInterrupt

    seen, rows = [], [1, 1, 1]
    with monkeypatch.context() as patch:
        patch.setattr(
            features, "write_atomically", lambda path, content: path.name == "identity.json" or killed(path, content)
        )
        with pytest.raises(KeyboardInterrupt):
            cached_features(fabric, tmp_path, {}, named(rows), rows, compute_ones(seen))
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert not (folder / features.FEATURES_FILE).exists(), "no features without their digest"
    for _ in range(2):
        cached_features(fabric, tmp_path, {}, named(rows), rows, compute_ones(seen))
        assert {path.name for path in folder.iterdir()} == {features.FEATURES_FILE, "features.sha256", "identity.json"}
        (folder / "chunks").mkdir()
        (folder / ".identity.json.0123abcd-7-0123abcd.partial").touch()
    assert seen == [0, 1, 2]


def compute_ones(seen):
    def compute(items):
        seen.extend(items)
        yield torch.ones(len(items), 2)

    return compute


def test_wrong_number_of_rows_is_a_defect(fabric, tmp_path):
    with pytest.raises(RuntimeError, match="1 feature rows, expected 2"):
        cached_features(fabric, tmp_path, {}, named([2]), [2], lambda items: [torch.zeros(1, 1)])


def test_data_digest_sees_names_and_contents_but_not_the_place(tmp_path):
    for name, content in (("one/a/x", b"1"), ("one/a/y", b"2"), ("two/a/x", b"1"), ("two/a/y", b"2")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)

    def files(root):
        return [path for path in (tmp_path / root).rglob("*") if path.is_file()]

    one = files_digest(tmp_path / "one", files("one"))
    assert one == files_digest(tmp_path / "two", files("two"))
    (tmp_path / "two/a/y").write_bytes(b"3")
    assert one != files_digest(tmp_path / "two", files("two"))
    (tmp_path / "two/a/y").write_bytes(b"2")
    (tmp_path / "two/a/y").rename(tmp_path / "two/a/z")
    assert one != files_digest(tmp_path / "two", files("two"))


def damage_header(file):
    file.write_bytes(b"garbage" + file.read_bytes()[7:])


def cut_off(file):
    file.write_bytes(file.read_bytes()[:-4])


def flip(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(60), b"\x80\x04N."])
def test_what_is_no_array_is_computed_again(fabric, tmp_path, content):
    cached_features(fabric, tmp_path, {}, named([1]), [1], lambda items: [torch.zeros(1, 2)])
    next(tmp_path.glob("*/features.npy")).write_bytes(content)
    assert cached_features(fabric, tmp_path, {}, named([1]), [1], lambda items: [torch.ones(1, 2)]).tolist() == [[1, 1]]


@pytest.mark.parametrize("name", ["features.npy", "features.sha256", "identity.json"])
def test_a_folder_in_place_of_a_file_is_refused_before_computing(fabric, tmp_path, name):
    rows, seen = [0, 1, 2], []
    cached_features(fabric, tmp_path, {}, named(rows), rows, compute_squares([]))
    file = next(tmp_path.glob(f"*/{name}"))
    (file.parent / "features.npy").unlink()
    file.unlink(missing_ok=True)
    file.mkdir()
    with pytest.raises(UserError, match=rf"{name}: it is a folder"):
        cached_features(fabric, tmp_path, {}, named(rows), rows, compute_squares(seen))
    assert seen == []


def test_parts_of_another_size_are_refused_and_removed(fabric, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 1)

    def ones(items):
        return [torch.ones(1, 3 if items[0] else 2)]

    with pytest.raises(UserError, match="have different sizes; they are removed"):
        cached_features(fabric, tmp_path, {}, named([1, 1]), [1, 1], ones)
    assert not [*tmp_path.glob("*/chunks"), *tmp_path.glob("*/features.npy")]


@pytest.mark.parametrize("damage", [damage_header, cut_off, flip, lambda file: file.write_bytes(b"")])
def test_damaged_features_are_computed_again(fabric, tmp_path, damage):
    rows, seen = [item % 3 for item in range(10)], []
    first = np.array(cached_features(fabric, tmp_path, {}, named(rows), rows, compute_squares(seen)))
    damage(next(tmp_path.glob("*/features.npy")))
    np.testing.assert_array_equal(
        cached_features(fabric, tmp_path, {}, named(rows), rows, compute_squares(seen)), first
    )
    assert seen == [*range(10), *range(10)]


def test_features_of_an_earlier_version_are_used(fabric, tmp_path):
    rows, seen = [1, 1], []
    cached_features(fabric, tmp_path, {}, named(rows), rows, lambda items: [torch.ones(len(items), 2)])
    next(tmp_path.glob("*/features.sha256")).unlink()
    found = cached_features(fabric, tmp_path, {}, named(rows), rows, compute_squares(seen))
    assert (found == 1).all()
    assert seen == []


def test_damaged_chunk_of_an_interrupted_computation_is_computed_again(fabric, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 2)
    seen = []

    def interrupted(items):
        if 2 in items:
            raise KeyboardInterrupt
        return [torch.ones(len(items), 1)]

    def compute(items):
        seen.extend(items)
        return [torch.ones(len(items), 1)]

    with pytest.raises(KeyboardInterrupt):
        cached_features(fabric, tmp_path, {}, named([1] * 4), [1] * 4, interrupted)
    cut_off(next(tmp_path.glob("*/chunks/000000.npy")))
    assert len(cached_features(fabric, tmp_path, {}, named([1] * 4), [1] * 4, compute)) == 4
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused_and_never_kept(fabric, tmp_path, value):
    def compute(items):
        return [torch.tensor([[0.0], [value], [0.0]])]

    with pytest.raises(UserError, match=r"features of 1\.png are not finite"):
        cached_features(fabric, tmp_path, {}, named([1, 2]), [1, 2], compute)
    assert not list(tmp_path.glob("*/features.npy"))
