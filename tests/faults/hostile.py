"""Files that were made to do harm; each is drawn by code and small on disk."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

Command = list[object]


class _Code:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


def cases(folder: Path, images: Path, proposals: Path, result: dict[str, object]) -> dict[str, tuple[Command, Path]]:
    """Name -> the command that meets the file, and the file; makes all of them.

    Args:
        folder: where the files go. A file called `ran` there means that code of a file was run.
        images: a folder of images.
        proposals: of these images.
        result: a sound `result.json`.
    """
    made: dict[str, tuple[Command, Path]] = {}

    def add(name: str, file: str, make: Callable[[Path], object], command: Callable[[Path], Command]) -> None:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        made[name] = (command(path), path)

    def info(path: Path) -> Command:
        return ["ccop-hub", "info", path]

    def propose(path: Path) -> Command:
        return ["ccop-pretrain", "proposals", path, "--out", folder / "out", "--workers", 1]

    def configured(path: Path) -> Command:
        return ["ccop-pretrain", "scenes", "--config", path, "--out", folder / "out"]

    def train(path: Path) -> Command:
        return ["ccop-pretrain", "run", "--images", images, "--proposals", path.parent, "--out", folder / "out"]

    def compare(path: Path) -> Command:
        return ["ccop-eval", "compare", path, path]

    add("pickle that runs code", "code.pth", lambda path: torch.save({"a": _Code(folder / "ran")}, path), info)
    add(
        "bare pickle that runs code",
        "code.pkl",
        lambda path: path.write_bytes(pickle.dumps(_Code(folder / "ran"))),
        info,
    )
    add("memo bomb", "memo.pkl", lambda path: path.write_bytes(_memo_bomb()), info)
    add("weights with NaN", "nan.pth", _nan_weights, info)
    add("device as weights", "unused", lambda path: None, lambda path: info(Path("/dev/zero")))
    add("FIFO as weights", "fifo.pth", os.mkfifo, info)
    add("PNG that is an EPS", "eps/a.png", _eps, lambda path: propose(path.parent))
    add("16-bit image beyond the pixel limit", "large/a.png", _large, lambda path: propose(path.parent))
    add("deep JSON", "deep.json", lambda path: path.write_text('{"images": ' + "[" * 10**6), propose)
    add("FIFO as a list", "fifo.txt", os.mkfifo, propose)
    add("device as a list", "zero.txt", lambda path: path.symlink_to("/dev/zero"), propose)
    add("FIFO as COCO JSON", "fifo.json", os.mkfifo, propose)
    add("YAML alias bomb as --config", "laughs.yaml", lambda path: path.write_text(_laughs()), configured)
    add("YAML merge bomb as --config", "merges.yaml", lambda path: path.write_text(_merges()), configured)
    add("deep YAML as --config", "deep.yaml", lambda path: path.write_text("a: " + "[" * 10**5), configured)
    add("FIFO as --config", "fifo.yaml", os.mkfifo, configured)
    add("device as --config", "zero.yaml", lambda path: path.symlink_to("/dev/zero"), configured)
    manifest = json.loads((proposals / "manifest.json").read_text())
    add(
        "manifest that asks for 87 PiB",
        "huge/manifest.json",
        lambda path: path.write_text(json.dumps(manifest | _scaled(manifest, 10**16))),
        train,
    )
    add("FIFO as a result", "fifo/result.json", lambda path: os.mkfifo(path), compare)
    add("result with a million points", "curve.json", lambda path: path.write_text(_curve(result)), compare)
    add("deep result", "deep/result.json", lambda path: path.write_text("[" * 10**6), compare)
    return made


def _memo_bomb() -> bytes:
    """A list that holds the one before it ten times over, forty times: 10^40 items by 500 bytes."""
    parts = [b"\x80\x02", b"]q\x00"]
    for number in range(40):
        parts.append(b"](" + bytes([ord("h"), number]) * 10 + b"eq" + bytes([number + 1]))
    return b"".join(parts) + b"."


def _nan_weights(path: Path) -> None:
    import timm

    state = timm.create_model("resnet18").state_dict()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, path)


def _eps(path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")
    path.write_bytes(buffer.getvalue())


def _large(path: Path) -> None:
    """A 16-bit grey PNG of 9500 x 9500 pixels in a few kilobytes."""
    side = 9500

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, rows = zlib.compressobj(9), bytearray()
    for _ in range(side):
        rows += packer.compress(bytes(1 + 2 * side))
    rows += packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 16, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", bytes(rows)) + chunk(b"IEND", b""))


def _laughs() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    return "\n".join([*lines, *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))])


def _merges() -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    return "\n".join([*lines, *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 8)}]}}" for n in range(1, 12))])


def _scaled(manifest: dict[str, object], factor: int) -> dict[str, object]:
    """Every count of a manifest, made absurd."""
    return {
        name: value * factor
        for name, value in manifest.items()
        if type(value) is int and name not in ("format_version", "seed")
    }


def _curve(result: dict[str, object]) -> str:
    points = ",".join(f'{{"step":{step},"a":0}}' for step in range(10**6))
    empty = json.dumps({**result, "curve": "CURVE"})
    return empty.replace('"CURVE"', f"[{points}]")
