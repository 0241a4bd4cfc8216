from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ccop_hub.cli import main
from ccop_hub.errors import UserError
from ccop_hub.files import file_digest
from ccop_hub.formats.checkpoint import read_checkpoint
from ccop_hub.formats.fingerprint import TOLERANCE, differences, features, fingerprint, fixed_input
from ccop_hub.formats.weights_files import FACTS_FILE, METADATA_KEY, WEIGHTS_FILE
from ccop_hub.publishing.verification import verify


@pytest.fixture
def export(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run / "exported", tmp_path / "exported")
    return tmp_path / "exported"


def results(path: Path) -> dict[str, bool | None]:
    return {check.name: check.passed for check in verify(path)}


def rewrite(export: Path, tensors: dict[str, Tensor], record: bool) -> None:
    """Replace tensors but keep the facts, like a careful attacker; `record` also updates the digest."""
    file = export / WEIGHTS_FILE
    facts = {key: value for key, value in json.loads((export / FACTS_FILE).read_text()).items() if key != "digest"}
    save_file(tensors, file, metadata={METADATA_KEY: json.dumps(facts)})
    if record:
        (export / FACTS_FILE).write_text(json.dumps({**facts, "digest": file_digest(file), "file": WEIGHTS_FILE}))


def test_an_export_as_it_was(export: Path, run: Path) -> None:
    assert results(export) == {"digest": True, "tensors": True, "features": True}
    assert results(run) == results(run / "exported" / WEIGHTS_FILE) == results(export)


def test_a_flipped_bit(export: Path) -> None:
    content = bytearray((export / WEIGHTS_FILE).read_bytes())
    content[-1000] ^= 1
    (export / WEIGHTS_FILE).write_bytes(content)
    assert results(export)["digest"] is False


@pytest.mark.parametrize(
    "name", ["backbone.conv1.weight", "backbone.layer4.1.bn2.running_var", "fpn.layer_blocks.0.0.weight"]
)
def test_changed_weights_with_a_fresh_digest(export: Path, name: str) -> None:
    tensors = load_file(export / WEIGHTS_FILE)
    rewrite(export, {**tensors, name: tensors[name] * 1.05}, record=True)
    assert results(export) == {"digest": True, "tensors": True, "features": False}
    rewrite(export, {**tensors, name: tensors[name] * (1 + 1e-7)}, record=True)
    assert results(export)["features"] is True


def test_swapped_channels_are_noticed(export: Path) -> None:
    """The same numbers in a different order have the same sums."""
    tensors = load_file(export / WEIGHTS_FILE)
    for name in [key for key in tensors if key.startswith("fpn.layer_blocks.0") and tensors[key].ndim]:
        tensors[name] = tensors[name].roll(1, 0).contiguous()
    rewrite(export, tensors, record=True)
    (check,) = [check for check in verify(export) if check.name == "features"]
    assert check.passed is False
    assert check.told.startswith("p2 differs by")


def test_unsound_tensors(export: Path) -> None:
    tensors = load_file(export / WEIGHTS_FILE)
    rewrite(export, {**tensors, "backbone.bn1.bias": torch.full((64,), torch.nan)}, record=True)
    assert results(export) == {"digest": True, "tensors": False}
    rewrite(export, {**tensors, "backbone.bn1.bias": torch.zeros(65)}, record=True)
    assert results(export) == {"digest": True, "tensors": False}
    (export / WEIGHTS_FILE).write_bytes((export / WEIGHTS_FILE).read_bytes()[:-100])
    assert results(export) == {"digest": False, "tensors": False}


def test_facts_that_are_damaged_or_gone(export: Path) -> None:
    (export / FACTS_FILE).write_text("{")
    assert results(export)["digest"] is False
    (export / FACTS_FILE).unlink()
    assert results(export) == {"digest": None, "tensors": True, "features": True}


@pytest.mark.parametrize("stored", [{}, {"values": 3, "tolerance": 1}, {"values": {"res2": []}, "tolerance": 1}])
def test_a_damaged_fingerprint(export: Path, stored: object) -> None:
    tensors = load_file(export / WEIGHTS_FILE)
    save_file(tensors, export / WEIGHTS_FILE, metadata={METADATA_KEY: json.dumps({"fingerprint": stored})})
    assert results(export)["features"] is False


def test_the_tolerance_of_the_file_does_not_count(export: Path) -> None:
    tensors = load_file(export / WEIGHTS_FILE)
    facts = json.loads((export / FACTS_FILE).read_text())
    facts["fingerprint"]["tolerance"] = 1e9
    tensors["backbone.conv1.weight"] = tensors["backbone.conv1.weight"] * 1.5
    save_file(tensors, export / WEIGHTS_FILE, metadata={METADATA_KEY: json.dumps(facts)})
    assert results(export)["features"] is False


def test_weights_without_a_fingerprint(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "a.pth")
    assert results(tmp_path / "a.pth") == {"digest": None, "tensors": True, "features": None}
    with pytest.raises(UserError, match="does not exist"):
        verify(tmp_path / "nowhere")


def test_command(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(export)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in told[:-1]] == ["digest: ok", "tensors: ok", "features: ok"]
    assert told[-1] == f"next: ccop-hub info {export}"
    (export / FACTS_FILE).write_text((export / FACTS_FILE).read_text().replace("sha256:", "sha256:0"))
    assert main(["verify", str(export)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("digest: DIFFERENT (sha256:")
    assert told[-1].startswith("next: ")
    assert "do not use them" in told[-1]
    assert main(["verify", str(export / "nowhere")]) == 2


# --- fingerprint


def test_random_weights_are_in_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "random"]) == 2
    assert "has no file to verify" in capsys.readouterr().err


def test_fingerprint_is_stable_and_leaves_the_random_state_alone(tensors: dict[str, Tensor]) -> None:
    state = torch.random.get_rng_state()
    one = fingerprint("resnet18", tensors)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one == fingerprint("resnet18", tensors)
    assert one["tolerance"] == TOLERANCE
    assert all(len(numbers) == 5 for numbers in one["values"].values())
    assert differences(json.loads(json.dumps(one)), "resnet18", tensors) == []


def test_first_number_is_the_root_mean_square(tensors: dict[str, Tensor]) -> None:
    values = fingerprint("resnet18", tensors)["values"]
    for name, stage in features("resnet18", tensors).items():
        assert values[name][0] == pytest.approx(float(stage.double().square().mean().sqrt()), rel=1e-6)


def test_a_part_on_one_side_alone(tensors: dict[str, Tensor]) -> None:
    backbone = {key: value for key, value in tensors.items() if key.startswith("backbone")}
    told = differences(fingerprint("resnet18", tensors), "resnet18", backbone)
    assert told == [f"p{i} is present on one side only" for i in range(2, 7)]


def test_fixed_input_never_changes() -> None:
    """Stored fingerprints depend on it."""
    images = fixed_input()
    assert images.shape == (1, 3, 64, 64)
    for channel, row, column in ((0, 0, 0), (1, 0, 0), (0, 5, 7), (2, 63, 63), (1, 40, 3)):
        expected = 2 * math.sin(0.37 * column + 0.23 * (channel + 1) * row + channel)
        assert float(images[0, channel, row, column]) == pytest.approx(expected, abs=1e-6)


def test_reading_keeps_the_fingerprint(run: Path) -> None:
    assert read_checkpoint(run).facts["fingerprint"]["values"]["res5"]
