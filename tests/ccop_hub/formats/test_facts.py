from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import Tensor

from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import read_checkpoint
from ccop_hub.formats.weights_files import METADATA_KEY

INPUT = {"mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 2.0], "channel_order": "RGB", "range": "0-255"}

WRONG = [
    ({"arch": ["resnet18"]}, "arch"),
    ({"arch": 18}, "arch"),
    ({"input": "RGB"}, "input"),
    ({"input": {**INPUT, "mean": "abc"}}, r"input\.mean"),
    ({"input": {**INPUT, "mean": [1, 2]}}, r"input\.mean"),
    ({"input": {**INPUT, "mean": [1, 2, True]}}, r"input\.mean"),
    ({"input": {**INPUT, "std": [1, 0, 1]}}, r"input\.std"),
    ({"input": {**INPUT, "std": None}}, r"input\.std"),
    ({"input": {**INPUT, "channel_order": "HSV"}}, r"input\.channel_order"),
    ({"input": {**INPUT, "range": [0, 1]}}, r"input\.range"),
    ({"settings": [1]}, "settings"),
    ({"versions": "1.0"}, "versions"),
    ({"dataset": "COCO"}, "dataset"),
    ({"fingerprint": [1]}, "fingerprint"),
    ({"steps": "many"}, "steps"),
]


@pytest.mark.parametrize(("facts", "field"), WRONG, ids=[json.dumps(facts) for facts, _ in WRONG])
def test_facts_of_other_types_are_named(
    facts: dict[str, Any], field: str, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "a.safetensors", metadata={METADATA_KEY: json.dumps(facts)})
    with pytest.raises(UserError, match=rf"a\.safetensors: metadata field {field} is ") as raised:
        read_checkpoint(tmp_path / "a.safetensors")
    assert "\n" not in str(raised.value)


def test_facts_that_are_null_count_as_absent(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    facts = {"arch": None, "input": None, "licence": None, "mine": [1]}
    save_file(tensors, tmp_path / "a.safetensors", metadata={METADATA_KEY: json.dumps(facts)})
    found = read_checkpoint(tmp_path / "a.safetensors")
    assert found.facts["arch"] == "resnet18"
    assert found.facts["input"]["mean"] == [123.675, 116.28, 103.53]
    assert found.facts["mine"] == [1]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": ["resnet18"]}, r"config\.json: metadata field arch is \['resnet18'\]"),
        ({"architecture": "resnet18", "pretrained_cfg": [1]}, "field pretrained_cfg"),
        (
            {"architecture": "resnet18", "pretrained_cfg": {"mean": "abc", "std": [1, 1, 1]}},
            r"metadata field input\.mean is 'abc'",
        ),
        (
            {"architecture": "resnet18", "pretrained_cfg": {"mean": [0, 0, 0], "std": [0, 0, 0]}},
            r"metadata field input\.std",
        ),
        ({"architecture": "no_such_net"}, "no_such_net"),
    ],
)
def test_wrong_timm_configurations(config: Any, said: str, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    body = {name.removeprefix("backbone."): value for name, value in tensors.items() if name.startswith("backbone.")}
    save_file(body, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=said) as raised:
        read_checkpoint(tmp_path)
    assert "\n" not in str(raised.value)


def test_another_librarys_configuration_is_left_alone(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    body = {name.removeprefix("backbone."): value for name, value in tensors.items() if name.startswith("backbone.")}
    save_file(body, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ResNetModel"], "model_type": "resnet"}))
    assert read_checkpoint(tmp_path).format == "torchvision"
