"""Read `torch.save` files, in the current ZIP format and the one before torch 1.6, with the inert pickle machine.

Tensors are views of the memory-mapped file, so unused ones cost nothing.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError, one_line
from ..regular_files import open_regular
from .inert_pickle import DamagedPickleError, NotDense, read_pickle
from .rebuilders import Arrays, Storage, container_names, element_type, tensor_names

ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of `torch.save` files before torch 1.6: the pickled magic number 0x1950a86a20f9469cfc6c."""

_SLACK = 1 << 20
"""Bytes by which the entries of an archive may exceed its size; uncompressed entries never do."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Local header of a ZIP entry (PKWARE APPNOTE 4.3.7): signature, and lengths of the name and the extra field."""

LARGEST_PICKLE = 1 << 28
"""Maximum size of `data.pkl` in bytes; it contains no tensor data."""


def mapped(path: Path) -> memoryview:
    """Map a file into memory, copy-on-write."""
    if path.stat().st_size == 0:
        return memoryview(b"")
    with open_regular(path) as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def archive_entries(path: Path) -> list[zipfile.ZipInfo]:
    """List the entries of a ZIP archive.

    Raises:
        UserError: the archive is damaged or truncated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError) as error:
        raise UserError(f"{path} is a damaged or truncated archive ({one_line(error)}): download it again") from None


def read_torch_zip(path: Path, entries: list[zipfile.ZipInfo]) -> Any:
    """Read the object in a `torch.save` ZIP file.

    Raises:
        UserError: the file was not written by `torch.save`.
        DamagedPickleError, HostilePickleError: as for `read_pickle`.
    """
    _check_entries(path, entries)
    by_name = {entry.filename: entry for entry in entries}
    pickled = next((entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"), None)
    if pickled is None:
        some = ", ".join(one_line(entry.filename, 60) for entry in entries[:3])
        raise UserError(f"{path} is a ZIP archive without weights ({some}, ...): unpack it first")
    if pickled.file_size > LARGEST_PICKLE:
        raise DamagedPickleError("data.pkl is larger than 256 MiB")
    data = mapped(path)
    folder = pickled.filename.removesuffix("data.pkl")
    order = by_name.get(f"{folder}byteorder")
    if order is not None and bytes(_content(data, order)) == b"big":
        raise UserError(f"{path} was written on a big-endian machine: load and save it on a little-endian one")
    storages: dict[str, Any] = {}

    def storage(identity: Any) -> Any:
        kind, storage_type, key, *_ = identity
        if kind != "storage" or not isinstance(key, str):
            raise DamagedPickleError("refers to something other than a storage")
        if key not in storages:
            entry = by_name[f"{folder}data/{key}"]
            storages[key] = _storage(storage_type, _content(data, entry))
        return storages[key]

    tree, _ = read_pickle(_content(data, pickled), _names(pickled.file_size), storage)
    return tree


def read_torch_legacy(path: Path) -> Any:
    """Read the object in a `torch.save` file from before torch 1.6.

    The file consists of five pickles (magic number, version, machine, object, storage keys), followed by the storages,
    each with its number of elements as int64 and then the elements.

    Raises:
        DamagedPickleError, HostilePickleError: as for `read_pickle`.
    """
    data = mapped(path)
    counts: dict[str, tuple[Any, int]] = {}

    def note(identity: Any) -> Any:
        if identity[0] == "module":  # a class and its source code
            return identity[1]
        kind, storage_type, key, _, count, *view = identity
        if kind != "storage" or not isinstance(key, str) or not isinstance(count, int) or any(view):
            raise DamagedPickleError("refers to part of a storage")
        counts[key] = (storage_type, count)
        return NotDense("torch.Tensor")

    # The object precedes its storages: the first pass finds the storages, the second builds the tensors.
    starts, parts = [0], []
    for _ in range(5):
        tree, length = read_pickle(data[starts[-1] :], _names(len(data)), note)
        parts.append(tree)
        starts.append(starts[-1] + length)
    machine, keys, position = parts[2], parts[4], starts[5]
    if isinstance(machine, dict) and machine.get("little_endian") is False:
        raise UserError(f"{path} was written on a big-endian machine: load and save it on a little-endian one")
    storages: dict[str, Any] = {}
    for key in keys:
        storage_type, count = counts[key]
        kind = element_type(storage_type)
        if kind is None or count != struct.unpack("<q", data[position : position + 8])[0]:
            raise DamagedPickleError("storage of unknown type or wrong size")
        end = position + 8 + count * kind.itemsize
        if count < 0 or end > len(data):
            raise DamagedPickleError("ends early")
        storages[key] = _storage(storage_type, data[position + 8 : end])
        position = end

    def storage(identity: Any) -> Any:
        return identity[1] if identity[0] == "module" else storages[identity[2]]

    tree, _ = read_pickle(data[starts[3] :], _names(len(data)), storage)
    return tree


def _names(size: int) -> dict[str, Any]:
    return container_names() | tensor_names(Arrays(size))


def _storage(storage_type: Any, content: memoryview) -> Storage | NotDense:
    kind = element_type(storage_type)
    if kind is None:
        return NotDense("a storage of something other than plain numbers")
    if len(content) % kind.itemsize:
        raise DamagedPickleError("storage size is not a multiple of its item size")
    if not content:
        return Storage(torch.empty(0, dtype=kind))
    flat = torch.frombuffer(content, dtype=torch.uint8)
    # The legacy format does not align storages.
    return Storage((flat if flat.data_ptr() % 16 == 0 else flat.clone()).view(kind))


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Reject what `torch.save` never writes: compressed, duplicate or overlapping entries, and code."""
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        repeated = next(name for name, count in Counter(names).items() if count > 1)
        raise UserError(
            f"{path} contains the entry {one_line(repeated)!r} twice, which torch.save never writes: download it again"
        )
    if any(name.endswith("/constants.pkl") for name in names):
        raise UserError(
            f"{path} is a TorchScript archive, which contains code: save its weights, "
            'torch.save(torch.jit.load("FILE").state_dict(), "weights.pth")'
        )
    size = path.stat().st_size
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(f"{path} contains compressed entries, which torch.save never writes: save it with torch.save")
    if sum(entry.file_size for entry in entries) > size + _SLACK:
        raise UserError(f"{path} would unpack to more than its {size} bytes: download it again")


def _content(data: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """Return the bytes of an uncompressed entry."""
    start = entry.header_offset
    signature, name, extra = _LOCAL_HEADER.unpack(data[start : start + _LOCAL_HEADER.size])
    first = start + _LOCAL_HEADER.size + name + extra
    if signature != ZIP_START or first + entry.file_size > len(data):
        raise DamagedPickleError("ends early")
    return data[first : first + entry.file_size]
