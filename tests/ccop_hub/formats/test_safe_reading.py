from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import io
import json
import os
import pickle
import random
import re
import tracemalloc
import types
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ccop_hub.errors import UserError
from ccop_hub.formats.inert_pickle import Note
from ccop_hub.formats.recognition import identify
from ccop_hub.formats.safe_reading import read_file
from ccop_hub.formats.tensor_checks import require_sound
from ccop_hub.formats.weights_files import facts_in


class Hostile:
    """Runs a shell command when unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


class Evaluating:
    """Evaluates Python when unpickled, through a built-in, so that no module name looks suspicious."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self.code,)


class ByState:
    """A class whose `__setstate__` an unpickler would call."""

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
        assert word in told
        assert "do not trust it" in told
        assert "\n" not in told
        assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os system",
        "posix popen",
        "subprocess Popen",
        "builtins exec",
        "__builtin__ eval",
        "builtins __import__",
        "builtins open",
        "io open",
        "torch.hub load",
        "torch load",
        "torch.os system",
        "random _os.system",
        "numpy load",
        "numpy.testing._private.utils runstring",
        "operator attrgetter",
        "runpy run_path",
        "types CodeType",
        "importlib import_module",
        "pickle loads",
        "sys modules",
        "shutil rmtree",
        "socket socket",
        "ctypes CDLL",
    ],
)
def test_names_that_only_serve_to_run_code_are_refused(name: str, tmp_path: Path) -> None:
    module, _, function = name.partition(" ")
    (tmp_path / "a.pkl").write_bytes(f"\x80\x02c{module}\n{function}\n.".encode("latin1"))
    with pytest.raises(UserError, match=rf"{module}\.{function}, which would run code; do not trust it"):
        read_file(tmp_path / "a.pkl")


class Colour(enum.Enum):
    RED = 3


@dataclasses.dataclass
class Options:
    rate: float = 0.1


Pair = collections.namedtuple("Pair", ("one", "two"))


class AttributeDict(dict[str, Any]):
    """Like Lightning's class, which lives in its own module."""


BESIDE = {
    "numpy scalar": np.float64(0.5),
    "numpy state": np.random.RandomState(0).get_state(),
    "numpy generator": np.random.default_rng(0),
    "torch state": torch.get_rng_state(),
    "python state": random.Random(0).getstate(),
    "path": Path("x/y"),
    "partial": functools.partial(sorted, reverse=True),
    "default": collections.defaultdict(list, {"a": [1]}),
    "ordered": collections.OrderedDict(a=1),
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1, 2]),
    "namespace": argparse.Namespace(lr=0.3),
    "simple namespace": types.SimpleNamespace(lr=0.3),
    "enumeration": Colour.RED,
    "dataclass": Options(),
    "named tuple": Pair(1, 2),
    "attribute dict": AttributeDict(lr=0.3),
    "date": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    "duration": datetime.timedelta(seconds=3),
    "set": {1, 2},
    "frozen set": frozenset((1, 2)),
    "complex": 1 + 2j,
    "bytes": b"abc" * 200,
    "byte array": bytearray(b"abc"),
    "type": torch.float16,
    "size": torch.Size((1, 2)),
    "device": torch.device("cpu"),
    "by state": ByState(),
    "function": sorted,
    "class": dict,
    "tuple key": {(1, 2): 3},
    "text array": np.array(["text"]),
    "object array": np.array([{}], dtype=object),
    "record array": np.zeros(2, dtype=[("x", "f4")]),
    "decimal": decimal.Decimal("1.5"),
    "identifier": uuid.UUID(int=3),
}


@each_writer
@pytest.mark.parametrize("beside", BESIDE)
def test_objects_beside_the_tensors_are_not_built(
    write: Callable[[object, Path], None], name: str, beside: str, tmp_path: Path
) -> None:
    weights: Any = torch.arange(6.0).reshape(2, 3)
    if write in (plain_pickle, old_pickle):
        weights = weights.numpy()
    write({"state_dict": {"a": weights}, "meta": [{beside: BESIDE[beside]}], "epoch": 3}, tmp_path / name)
    tree = read_file(tmp_path / name).tree
    assert torch.equal(tree["state_dict"]["a"], torch.arange(6.0).reshape(2, 3))
    assert tree["epoch"] == 3
    kinds = dict | list | tuple | str | bytes | memoryview | int | float | Note | Tensor | None
    assert isinstance(tree["meta"][0][beside], kinds)


def test_what_a_note_keeps(tmp_path: Path) -> None:
    torch.save({"opt": argparse.Namespace(lr=0.3), "path": Path("x"), "d": AttributeDict(a=1)}, tmp_path / "a.pth")
    tree = read_file(tmp_path / "a.pth").tree
    assert (tree["opt"].name, tree["opt"].state) == ("argparse.Namespace", {"lr": 0.3})
    assert tree["path"].name.startswith("pathlib.")
    assert tree["d"].items == {"a": 1}


def test_an_indirect_call_is_refused(tmp_path: Path) -> None:
    """`getattr` on something harmless could reach anything."""
    code = b"\x80\x02cbuiltins\ngetattr\n(cnumpy\nndarray\nX\x08\x00\x00\x00__init__tR."
    (tmp_path / "a.pkl").write_bytes(code)
    with pytest.raises(UserError, match=r"builtins\.getattr"):
        read_file(tmp_path / "a.pkl")


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
def test_arrays_of_other_things_are_no_weights(array: np.ndarray[Any, Any], tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": {"a": array}}))
    with pytest.raises(UserError, match="a is not a dense tensor of real numbers"):
        require_sound(read_file(tmp_path / "a.pkl").tree["model"])


def test_big_endian_arrays(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": np.arange(3, dtype=">f4"), "b": np.int16(258)}))
    tree = read_file(tmp_path / "a.pkl").tree
    assert torch.equal(tree["a"], torch.arange(3.0))
    assert tree["b"] == 258


class Claiming:
    """An array whose declared shape does not match its data."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def peak_of_reading(file: Path) -> tuple[str, int]:
    """Return the message from reading a file, and Python's and NumPy's peak memory."""
    tracemalloc.start()
    try:
        read_file(file)
        told = ""
    except UserError as error:
        told = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in told
    return told, peak


MEBIBYTE = 1 << 20


def test_absurd_shapes_take_no_memory(tmp_path: Path) -> None:
    reconstruct = np.zeros(1).__reduce__()[0]
    huge = Claiming(reconstruct, (np.ndarray, (10**13,), b"b"))
    claimed = Claiming(
        reconstruct, (np.ndarray, (0,), b"b"), (1, (10**6, 10**6), np.dtype("f4"), False, np.zeros(1, "f4").tobytes())
    )
    negative = Claiming(reconstruct, (np.ndarray, (0,), b"b"), (1, (-1, -1), np.dtype("f4"), False, bytes(4)))
    block = Claiming(bytearray, (10**12,))
    for array, said in ((huge, ""), (claimed, "shape"), (negative, "negative size"), (block, "")):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": {"a": array}}))
        told, peak = peak_of_reading(tmp_path / "a.pkl")
        assert said in told
        assert bool(told) == bool(said)
        assert peak < MEBIBYTE


def test_one_buffer_in_many_arrays_is_refused(tmp_path: Path) -> None:
    """A thousand arrays over the same megabyte would take a gigabyte."""
    raw = np.zeros(1 << 18, "f4").tobytes()
    reconstruct = np.zeros(1).__reduce__()[0]
    state = (1, (1 << 18,), np.dtype("f4"), False, raw)
    arrays = [Claiming(reconstruct, (np.ndarray, (0,), b"b"), state) for _ in range(1000)]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays))
    told, peak = peak_of_reading(tmp_path / "a.pkl")
    assert "larger than the file" in told
    assert peak < 8 * MEBIBYTE


def test_deep_and_shared_containers_are_no_trouble(tmp_path: Path) -> None:
    deep = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    (tmp_path / "deep.pkl").write_bytes(deep)
    tuples = b"\x80\x02}(" + b")" + b"\x85" * 200_000 + b"K\x01u."
    (tmp_path / "key.pkl").write_bytes(tuples)
    laughing: list[Any] = [torch.zeros(1)]
    for _ in range(40):
        laughing = [laughing] * 10
    torch.save({"a": laughing}, tmp_path / "laughing.pth")
    for name in ("deep.pkl", "key.pkl", "laughing.pth"):
        with pytest.raises(UserError, match="tensors"):
            identify(read_file(tmp_path / name).tree)


def test_too_many_operations_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + b"N0" * 3_000_000 + b"N.")
    with pytest.raises(UserError, match="more than 2000000 operations"):
        read_file(tmp_path / "a.pkl")


def test_keys_that_collide_do_not_slow_a_dictionary(tmp_path: Path) -> None:
    step = (1 << 61) - 1  # the modulus of Python's hash of integers
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({step * number: None for number in range(2000)}))
    tree = read_file(tmp_path / "a.pkl").tree
    assert sum(isinstance(key, Note) for key in tree) == 1999


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (b"\x80\x04\x8c\x01ar\xff\xff\xff\x7f.", ""),  # memoize at index 2147483647
        (b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"x.", "damaged or truncated"),  # a tebibyte
        (b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.", "damaged or truncated"),
        (b"\x80\x04\x8b" + (1 << 30).to_bytes(4, "little") + b"x.", "damaged or truncated"),  # a long integer
    ],
    ids=["memo", "bytearray", "bytes", "integer"],
)
def test_claimed_lengths_take_no_memory(code: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(code)
    said, peak = peak_of_reading(tmp_path / "a.pkl")
    assert told in said
    assert peak < MEBIBYTE


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(4.0)}, tmp_path / "a.pth")
    raw = (tmp_path / "a.pth").read_bytes()
    # The shape (4,) in pickle protocol 2: K\x04 \x85.
    (tmp_path / "a.pth").write_bytes(raw.replace(b"K\x04\x85", b"K\x7f\x85", 1))
    with pytest.raises(UserError, match=r"shape \(127,\) extends beyond its storage"):
        read_file(tmp_path / "a.pth")


def test_names_can_not_write_to_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02cos\nsystem\x1b[2J\r\x07\nX\x01\x00\x00\x00a\x85R.")
    with pytest.raises(UserError) as raised:
        read_file(tmp_path / "a.pkl")
    assert str(raised.value).isprintable()
    assert "references os.system [2J" in str(raised.value)


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
    """Overlapping entries let a small file unpack to a large one without compression."""
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
    with pytest.raises(UserError, match="download it again") as raised:
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
    with pytest.raises(UserError, match=r"TorchScript archive.*torch\.jit\.load"):
        read_file(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", [lambda module: module, lambda module: {"epoch": 1, "model": module}])
def test_a_pickled_module_is_refused_with_what_to_save(
    place: Callable[[object], object], legacy: bool, tmp_path: Path
) -> None:
    torch.save(place(torch.nn.Linear(2, 2)), tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    tree = read_file(tmp_path / "a.pth").tree
    with pytest.raises(UserError, match=r"torch\.nn\..*Linear.*torch\.save\(model\.state_dict\(\), \"weights\.pth\"\)"):
        identify(tree)


def test_a_pickled_module_beside_a_state_dict_is_no_trouble(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"loss": torch.nn.CrossEntropyLoss(), "state_dict": tensors}, tmp_path / "a.pth")
    found = identify(read_file(tmp_path / "a.pth").tree)
    assert torch.equal(found.tensors["backbone.conv1.weight"], tensors["backbone.conv1.weight"])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numpy_archives(save: Callable[..., None], tmp_path: Path) -> None:
    save(tmp_path / "a.npz", **{"conv1.weight": np.arange(6, dtype=np.float32).reshape(2, 3)})
    contents = read_file(tmp_path / "a.npz")
    assert contents.container == "npz"
    assert torch.equal(contents.tree["conv1.weight"], torch.arange(6.0).reshape(2, 3))


def test_numpy_archives_of_other_things_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(1 << 22))
    with pytest.raises(UserError, match="unpack to more than 8 times its size"):
        read_file(tmp_path / "bomb.npz")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"objects\.npz"):
        read_file(tmp_path / "objects.npz")


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
    ids=["shape", "overlap", "extends beyond its storage", "no JSON"],
)
def test_broken_safetensors(header: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a complete safetensors file"):
        read_file(safetensors_file(tmp_path / "a.safetensors", header, bytes(16)))


def test_facts_must_be_an_object(tmp_path: Path) -> None:
    assert facts_in({"ccop": json.dumps({"arch": "resnet18"})}, "ccop", tmp_path) == {"arch": "resnet18"}
    assert facts_in({}, "ccop", tmp_path) == {}
    for text in ("[1]", "{", "null"):
        with pytest.raises(UserError, match="not a JSON object"):
            facts_in({"ccop": text}, "ccop", tmp_path)


def test_an_old_torch_file_that_lists_a_storage_it_does_not_have_is_damaged(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=False)
    data = buffer.getvalue()
    key = re.findall(rb"X\x01?[\x01-\x20]\x00\x00\x00(\d{6,})", data)[-1]
    place = data.rfind(key)
    path = tmp_path / "a.pth"
    path.write_bytes(data[:place] + b"7" * len(key) + data[place + len(key) :])
    with pytest.raises(UserError, match=r"a\.pth is damaged or truncated"):
        read_file(path)


def test_negative_variances_are_refused() -> None:
    with pytest.raises(UserError, match=r"negative variances in bn1\.running_var"):
        require_sound({"bn1.running_var": torch.tensor([1.0, -1e-3])})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e39, 1e300])
def test_numbers_that_are_not_finite_in_float32_are_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"(NaN or infinite|too large for float32).* in b:"):
        require_sound({"a": torch.tensor([1e38], dtype=torch.float64), "b": torch.tensor([value], dtype=torch.float64)})


def test_a_header_larger_than_that_of_any_network_is_not_parsed(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' + b" " * (8 << 20) + b"}"
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match="has a header of 8 MiB"):
        read_file(path)


def test_an_array_that_asks_for_terabytes_is_refused(tmp_path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.encode())
    with pytest.raises(UserError, match=r"not a complete \.npz file"):
        read_file(tmp_path / "a.npz")
