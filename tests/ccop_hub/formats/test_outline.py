"""The outline of a safetensors file is that of its weights, and is refused wherever reading them would fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ccop_hub.formats.checkpoint import read_checkpoint
from ccop_hub.formats.conversion import convert
from ccop_hub.formats.outline import outline_of, read_outline
from ccop_hub.sources.resolve import in_rgb, resolve

from .. import foreign_layouts as layouts


def test_outline_of_an_exported_network(run: Path) -> None:
    assert read_outline(run) == outline_of(in_rgb(read_checkpoint(run)))


def test_outline_of_a_timm_folder(run: Path, tmp_path: Path) -> None:
    convert(resolve(str(run)), "timm", tmp_path / "timm")
    found = read_outline(tmp_path / "timm")
    assert found == outline_of(in_rgb(read_checkpoint(tmp_path / "timm")))
    assert found is not None
    assert found.format == "timm"
    assert found.parts == ("backbone",)


def test_outline_of_a_prefixed_file_with_a_head_and_no_counters(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    backbone = {name: value for name, value in layouts.part(tensors, "backbone").items() if "num_batches" not in name}
    state = {f"module.encoder.{name}": value.contiguous() for name, value in backbone.items()}
    save_file({**state, "module.head.weight": torch.zeros(3, 4)}, tmp_path / "a.safetensors")
    found = read_outline(tmp_path / "a.safetensors")
    assert found == outline_of(in_rgb(read_checkpoint(tmp_path / "a.safetensors")))
    assert found is not None
    assert found.unused == ("module.head.weight",)


@pytest.mark.parametrize(
    "damage", ["nan", "infinite", "shape", "missing", "truncated", "integers", "bfloat16", "torch"]
)
def test_other_files_have_to_be_read_in_full(damage: str, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    state = {name: value.clone() for name, value in layouts.part(tensors, "backbone").items()}
    name = "layer2.0.conv1.weight"
    if damage in ("nan", "infinite"):
        state[name][0, 0, 0, 0] = float("nan") if damage == "nan" else float("inf")
    elif damage == "shape":
        state[name] = state[name][:-1].clone()
    elif damage == "missing":
        del state[name]
    elif damage in ("integers", "bfloat16"):
        state[name] = state[name].to(torch.int64 if damage == "integers" else torch.bfloat16)
    save_file(state, file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "torch":
        torch.save(state, file)
    assert read_outline(file) is None
    assert read_outline(tmp_path / "absent") is None
