from __future__ import annotations

import argparse
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ccop_hub.errors import UserError
from ccop_hub.formats.safe_reading import facts_in, read_file


class Hostile:
    """Runs a shell command when unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


class Evaluating:
    """Evaluates Python when unpickled, by a built-in that no module name gives away."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self.code,)


class ByState:
    """A class of this module whose `__setstate__` an unpickler would call."""

    def __setstate__(self, state: object) -> None:
        raise AssertionError("this ran")

    def __getstate__(self) -> dict[str, int]:
        return {"x": 1}


def nested(payload: object) -> dict[str, Any]:
    return {"state_dict": {"a": torch.ones(1)}, "meta": {"hooks": [({"deep": (payload,)},)]}}


def torch_zip(tree: object, path: Path) -> None:
    torch.save(tree, path)


def torch_legacy(tree: object, path: Path) -> None:
    torch.save(tree, path, _use_new_zipfile_serialization=False)


def plain_pickle(tree: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(tree))


def old_pickle(tree: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(tree, protocol=0))


each_writer = pytest.mark.parametrize(
    ("write", "name"),
    [(torch_zip, "a.pth"), (torch_legacy, "a.pth"), (plain_pickle, "a.pkl"), (old_pickle, "a.pkl")],
    ids=["torch", "torch-legacy", "pickle", "pickle-protocol-0"],
)


@each_writer
@pytest.mark.parametrize("place", [lambda payload: payload, nested], ids=["top", "nested"])
def test_hostile_pickles_are_refused_before_anything_runs(
    write: Callable[[object, Path], None], name: str, place: Callable[[object], object], tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    for payload, word in (
        (Hostile(f"touch {mark}"), "posix.system"),
        (Evaluating(f"open({str(mark)!r}, 'w')"), "eval"),
    ):
        write(place(payload), tmp_path / name)
        with pytest.raises(UserError) as raised:
            read_file(tmp_path / name)
        told = str(raised.value)
        # A pickle with a tensor in it is refused for whichever of the two classes comes first.
        assert word in told or "torch._utils._rebuild_tensor_v2" in told
        assert "do not trust it" in told
        assert "\n" not in told
        assert not mark.exists()


@each_writer
def test_classes_are_refused_by_name(write: Callable[[object, Path], None], name: str, tmp_path: Path) -> None:
    write({"config": ByState()}, tmp_path / name)
    with pytest.raises(UserError, match=r"ByState|copy_reg\._reconstructor"):
        read_file(tmp_path / name)
    write({"path": Path("x")}, tmp_path / name)
    with pytest.raises(UserError, match=r"pathlib\.\w*Path"):
        read_file(tmp_path / name)


def test_an_indirect_call_is_refused(tmp_path: Path) -> None:
    """`getattr` would reach everything from something harmless."""
    code = b"\x80\x02cbuiltins\ngetattr\n(cnumpy\nndarray\nX\x08\x00\x00\x00__init__tR."
    (tmp_path / "a.pkl").write_bytes(code)
    with pytest.raises(UserError, match=r"builtins\.getattr"):
        read_file(tmp_path / "a.pkl")


def test_namespace_is_the_one_class_added(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.arange(3)}, "opt": argparse.Namespace(lr=0.3)}, tmp_path / "a.pth")
    contents = read_file(tmp_path / "a.pth")
    assert contents.container == "torch"
    assert contents.tree["opt"].lr == 0.3
    # Allowed while reading alone: nothing stays behind for other code of the process.
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files(legacy: bool, tmp_path: Path) -> None:
    torch.save({"a": torch.eye(2)}, tmp_path / "weights.bin", _use_new_zipfile_serialization=not legacy)
    assert torch.equal(read_file(tmp_path / "weights.bin").tree["a"], torch.eye(2))


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol(protocol: int, tmp_path: Path) -> None:
    ordered = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {
        "c order": ordered,
        "fortran order": np.asfortranarray(ordered),
        "sliced": ordered[:, ::2],
        "none": np.zeros((0, 3), dtype=np.float32),
        "scalar array": np.array(7, dtype=np.int64),
        "half": ordered.astype(np.float16),
        "double": ordered.astype(np.float64),
        "bytes": ordered.astype(np.uint8),
        "truth": ordered > 2,
    }
    tree = {"model": arrays, "__author__": "someone", "number": np.float64(0.5), "matching_heuristics": True}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(tree, protocol=protocol))
    contents = read_file(tmp_path / "a.pkl")
    assert contents.container == "pickle"
    assert contents.tree["number"] == 0.5
    assert contents.tree["__author__"] == "someone"
    for name, array in arrays.items():
        found = contents.tree["model"][name]
        assert found.shape == array.shape
        assert str(found.dtype).removeprefix("torch.") == str(array.dtype)
        assert torch.equal(found, torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape))


@pytest.mark.parametrize(
    "array",
    [
        np.array([{}], dtype=object),
        np.array(["text"]),
        np.zeros(2, dtype=[("x", "f4")]),
        np.zeros(2, dtype="complex64"),
    ],
    ids=["objects", "text", "records", "complex"],
)
def test_arrays_of_other_things_are_refused(array: np.ndarray[Any, Any], tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": {"a": array}}))
    with pytest.raises(UserError, match="only numbers are read"):
        read_file(tmp_path / "a.pkl")


def test_big_endian_arrays_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": np.zeros(2, dtype=">f4")}))
    with pytest.raises(UserError, match="big-endian"):
        read_file(tmp_path / "a.pkl")


class Claiming:
    """An array that claims a shape its data do not have."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_absurd_shapes_are_refused_without_allocating(tmp_path: Path) -> None:
    reconstruct = np.zeros(1).__reduce__()[0]
    huge = Claiming(reconstruct, (np.ndarray, (10**13,), b"b"))
    claimed = Claiming(
        reconstruct, (np.ndarray, (0,), b"b"), (1, (10**6, 10**6), np.dtype("f4"), False, np.zeros(1, "f4").tobytes())
    )
    negative = Claiming(reconstruct, (np.ndarray, (0,), b"b"), (1, (-1, -1), np.dtype("f4"), False, bytes(4)))
    for array, said in ((huge, "numpy does not write"), (claimed, "do not agree"), (negative, "do not agree")):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": {"a": array}}))
        with pytest.raises(UserError, match=said):
            read_file(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x04\x8c\x01ar\xff\xff\xff\x7f.",  # remember something in slot 2147483647
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"x.",  # an array of a tebibyte
        b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",  # bytes, likewise
    ],
    ids=["memo", "bytearray", "bytes"],
)
def test_pickles_that_would_fill_the_memory(code: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(code)
    with pytest.raises(UserError, match=r"no need of|damaged or truncated"):
        read_file(tmp_path / "a.pkl")


def test_names_can_not_write_to_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02cos\x1b[2J\r\nsystem\x07\nX\x01\x00\x00\x00a\x85R.")
    with pytest.raises(UserError) as raised:
        read_file(tmp_path / "a.pkl")
    assert str(raised.value).isprintable()
    assert "asks for os [2J" in str(raised.value)


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], list[tuple[zipfile.ZipInfo, bytes]]]) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            for info, content in change(name, old.read(name)):
                new.writestr(info, content)


def test_zip_bomb(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "a.pth")

    def deflated(name: str, content: bytes) -> list[tuple[zipfile.ZipInfo, bytes]]:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        return [(info, content)]

    rewritten(tmp_path / "a.pth", tmp_path / "bomb.pth", deflated)
    assert (tmp_path / "bomb.pth").stat().st_size < 1 << 17
    with pytest.raises(UserError, match="compressed entries"):
        read_file(tmp_path / "bomb.pth")


def test_entry_that_claims_more_than_the_file(tmp_path: Path) -> None:
    """Entries that overlap make a small file unpack to a large one without compression."""
    torch.save({"a": torch.zeros(1 << 18)}, tmp_path / "a.pth")
    raw = (tmp_path / "a.pth").read_bytes()
    at = raw.rfind(b"PK\x01\x02", 0, raw.rfind(b"PK\x05\x06"))
    first = raw.find(b"PK\x01\x02")
    sizes = bytearray(raw)
    while first != -1 and first <= at:
        sizes[first + 20 : first + 28] = (1 << 30).to_bytes(4, "little") * 2
        first = raw.find(b"PK\x01\x02", first + 4)
    (tmp_path / "a.pth").write_bytes(sizes)
    with pytest.raises(UserError, match=r"unpack to more|damaged"):
        read_file(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_repeated_entries(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4)}, tmp_path / "a.pth")

    def twice(name: str, content: bytes) -> list[tuple[zipfile.ZipInfo, bytes]]:
        return [(zipfile.ZipInfo(name), content)] * (2 if name.endswith("data.pkl") else 1)

    rewritten(tmp_path / "a.pth", tmp_path / "twice.pth", twice)
    with pytest.raises(UserError, match=r"data\.pkl' twice"):
        read_file(tmp_path / "twice.pth")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["torch", "legacy", "pickle", "safetensors"])
def test_truncated_files(kind: str, kept: float, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    tree = {"a": torch.rand(64, 64), "b": torch.rand(64, 64)}
    if kind == "safetensors":
        save_file(tree, whole)
    elif kind == "pickle":
        plain_pickle({key: value.numpy() for key, value in tree.items()}, whole)
    else:
        torch.save(tree, whole, _use_new_zipfile_serialization=kind == "torch")
    raw = whole.read_bytes()
    (tmp_path / "cut").write_bytes(raw[: int(len(raw) * kept)])
    with pytest.raises(UserError, match=r"get it again|do not trust") as raised:
        read_file(tmp_path / "cut")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title>", "web page"),
        (b"\n<html>", "web page"),
        (b"import torch\n", "unknown first bytes"),
        (b'{"info":{"year": 2017}, "images": []}', "it is JSON or other text"),
        (b"[1, 2, 3]", "it is JSON or other text"),
        ((1 << 40).to_bytes(8, "little") + b'{"a":', "truncated safetensors"),
    ],
)
def test_files_of_other_kinds(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_file(tmp_path / "a.pth")


def test_torchscript_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        for name in ("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py", "m/version"):
            archive.writestr(name, b"3\n")
    with pytest.raises(UserError, match="TorchScript archive, which holds code"):
        read_file(tmp_path / "a.pth")


def test_a_pickled_module_is_refused_with_what_to_save(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"is a pickled torch\.nn\..*Linear, which holds code: save its state_dict"):
        read_file(tmp_path / "a.pth")


def safetensors_file(path: Path, header: str, data: bytes) -> Path:
    raw = header.encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        '{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,16]}}',
        '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,999]}}',
        '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}',
    ],
    ids=["shape", "overlap", "beyond the end", "no JSON"],
)
def test_broken_safetensors(header: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a whole safetensors file"):
        read_file(safetensors_file(tmp_path / "a.safetensors", header, bytes(16)))


def test_facts_must_be_an_object(tmp_path: Path) -> None:
    assert facts_in({"ccop": json.dumps({"arch": "resnet18"})}, "ccop", tmp_path) == {"arch": "resnet18"}
    assert facts_in({}, "ccop", tmp_path) == {}
    for text in ("[1]", "{", "null"):
        with pytest.raises(UserError, match="not a JSON object"):
            facts_in({"ccop": text}, "ccop", tmp_path)
