from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import file_digest, read_checkpoint, save_checkpoint, tensors_digest
from ccop_hub.formats.weights_files import FACTS_FILE, WEIGHTS_FILE

from ..conftest import FACTS


@pytest.mark.parametrize("place", ["", "exported", f"exported/{WEIGHTS_FILE}"])
def test_read_back(run: Path, tensors: dict[str, Tensor], place: str) -> None:
    found = read_checkpoint(run / place)
    assert found.name == str(run / place)
    assert (found.arch, found.format, found.parts, found.unused) == ("resnet18", "canonical", ("backbone", "fpn"), ())
    assert {key: found.facts[key] for key in FACTS} == FACTS
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[key], value) for key, value in tensors.items())
    content = (run / "exported" / WEIGHTS_FILE).read_bytes()
    assert found.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_facts_beside_the_weights(run: Path) -> None:
    facts = json.loads((run / "exported" / FACTS_FILE).read_text())
    assert facts["digest"] == file_digest(run / "exported" / WEIGHTS_FILE)
    assert facts["file"] == WEIGHTS_FILE
    assert facts["dataset"] == FACTS["dataset"]
    assert set(facts["fingerprint"]["values"]) == {f"{kind}{i}" for kind in "p" for i in range(2, 7)} | {
        f"res{i}" for i in range(2, 6)
    }


def test_same_content_same_bytes(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    one = save_checkpoint(tmp_path / "one", tensors, FACTS)
    two = save_checkpoint(tmp_path / "two", dict(reversed(tensors.items())), dict(reversed(FACTS.items())))
    assert one.read_bytes() == two.read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [WEIGHTS_FILE, FACTS_FILE]


def test_weights_parts(run: Path) -> None:
    weights = read_checkpoint(run)
    assert len(weights.part("backbone")) == 120
    assert len(weights.part("fpn")) == 48
    assert "conv1.weight" in weights.part("backbone")


def test_tensors_digest(tensors: dict[str, Tensor]) -> None:
    digest = tensors_digest(tensors)
    assert digest == tensors_digest(dict(reversed(tensors.items())))
    for name, value in (("backbone.bn1.bias", 1e-6), ("fpn.inner_blocks.0.1.num_batches_tracked", 1)):
        assert tensors_digest({**tensors, name: tensors[name] + value}) != digest
    assert tensors_digest({"a": torch.zeros(4)}) != tensors_digest({"a": torch.zeros(2, 2)})
    assert tensors_digest({"a": torch.zeros(1)}) != tensors_digest({"a": torch.zeros(1, dtype=torch.int32)})


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        read_checkpoint(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"contains no backbone_fpn\.safetensors"):
        read_checkpoint(tmp_path)


def test_networks_whose_features_overflow_are_not_written(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    damaged = dict(tensors)
    for name in ("backbone.layer4.1.bn1.weight", "backbone.layer4.1.bn2.weight"):
        damaged[name] = torch.full_like(damaged[name], 3e38)
    with pytest.raises(UserError, match="res5 of a fixed input are not finite"):
        save_checkpoint(tmp_path / "out", damaged, FACTS)
    assert not (tmp_path / "out").exists()
