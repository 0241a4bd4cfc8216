from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from torch import Tensor, nn

from ccop_hub.architectures import ResNetFPN, build_resnet_fpn
from ccop_hub.formats.checkpoint import save_checkpoint

from .hub_server import TOKEN, HubServer


def distinct_network(arch: str) -> ResNetFPN:
    """A network whose BN statistics and scales all differ from their defaults, so that every mix-up shows."""
    network = build_resnet_fpn(arch, seed=5).train()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(0.75 + 0.5 * torch.rand(module.weight.shape, generator=generator))
                module.bias.copy_(0.2 * torch.rand(module.bias.shape, generator=generator))
        network(torch.rand(2, 3, 64, 64, generator=generator))
    return network.eval()


FACTS = {
    "arch": "resnet18",
    "objective": "ccop",
    "parts": ["backbone", "fpn"],
    "dataset": {"name": "scenes", "images": 482, "digest": "sha256:" + "5" * 64},
    "steps": 1200,
    "epochs": 20,
    "batch_size": 32,
    "image_size": 224,
    "input": {
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "channel_order": "RGB",
        "range": "0-255",
    },
    "settings": {"lr": 0.3, "backbone": "resnet18"},
    "versions": {"ccop_hub": "0.1.0", "torch": "2.15.0"},
    "created": "2026-01-02T03:04:05+00:00",
}


@pytest.fixture(scope="session")
def tensors() -> dict[str, Tensor]:
    """A ResNet-18 with FPN under canonical names."""
    return distinct_network("resnet18").state_dict()


@pytest.fixture(scope="session")
def run(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with an exported network."""
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(folder / "exported", tensors, FACTS)
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for timm's smallest ResNet."""
    folder = tmp_path_factory.mktemp("tiny")
    save_checkpoint(folder / "exported", distinct_network("test_resnet").state_dict(), {**FACTS, "arch": "test_resnet"})
    return folder


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate the tests from the user's caches, token and proxies."""
    monkeypatch.setenv("CCOP_HUB_CACHE", str(tmp_path / "ccop_cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf_home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf_cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "hf_token"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub on loopback that this process uses, as a user with write access."""
    server = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    yield server
    server.close()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without delay."""
    monkeypatch.setattr("time.sleep", lambda _: None)
