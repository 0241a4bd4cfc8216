"""What the programs and `torch.hub` import: start-up time without a clock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor, nn

from ccop_hub.architectures import build_backbone, uninitialised
from ccop_hub.formats.checkpoint import save_checkpoint

SLOW = {
    "annotationlib",
    "concurrent.futures",
    "fvcore",
    "huggingface_hub",
    "importlib.metadata",
    "lightning",
    "logging",
    "multiprocessing",
    "numpy",
    "PIL",
    "pydantic",
    "timm",
    "torch",
    "torchvision",
    "yaml",
}
"""Packages that take a noticeable time to import."""

RUN = """
import sys
from {package}.cli import main
main(sys.argv[1:])
sys.stdout = sys.stderr
print(*sys.modules)
"""


def imported(package: str, *words: str) -> set[str]:
    """Return the modules of a process that ran a command."""
    command = [sys.executable, "-W", "ignore", "-c", RUN.format(package=package), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("package", ["ccop_hub", "ccop_pretrain", "ccop_eval"])
def test_help_imports_nothing_slow(package: str) -> None:
    assert not imported(package, "--help") & SLOW


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported ResNet-18 without pyramid."""
    folder = tmp_path_factory.mktemp("exported")
    state: dict[str, Tensor] = build_backbone("resnet18").state_dict()
    save_checkpoint(folder, {f"backbone.{name}": value for name, value in state.items()}, {"arch": "resnet18"})
    return folder


def test_info_reads_only_the_header_of_safetensors(checkpoint: Path) -> None:
    modules = imported("ccop_hub", "info", str(checkpoint))
    assert "ccop_hub.formats.outline" in modules
    assert not modules & {"torch", "timm", "torchvision", "fvcore", "huggingface_hub", "PIL"}


def test_info_of_a_pytorch_file_builds_no_network(checkpoint: Path, tmp_path: Path) -> None:
    import torch

    torch.save(build_backbone("resnet18").state_dict(), tmp_path / "weights.pth")
    modules = imported("ccop_hub", "info", str(tmp_path / "weights.pth"))
    assert not modules & {"timm", "torchvision", "fvcore", "huggingface_hub", "PIL"}


def test_networks_to_be_loaded_into_draw_no_initial_values(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = torch.get_rng_state()
    with uninitialised():
        network = build_backbone("resnet18")
    assert torch.equal(torch.get_rng_state(), before)
    assert {name for name, _ in network.named_buffers()} > {"bn1.running_mean", "bn1.running_var"}
    convolution = nn.Conv2d(1, 1, 1)
    assert not torch.equal(torch.get_rng_state(), before)
    assert convolution.weight.isfinite().all()
