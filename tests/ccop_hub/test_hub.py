from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.resnet import ResNet
from torch import Tensor

import ccop_hub
from ccop_hub.architectures import FPN_CHANNELS, HUB_ARCHITECTURES, ResNetFPN
from ccop_hub.errors import UserError

from . import foreign_layouts as layouts

ROOT = Path(__file__).parents[2]


def load(name: str, **arguments: Any) -> Any:
    return torch.hub.load(str(ROOT), name, source="local", **arguments)


def same(module: torch.nn.Module, tensors: dict[str, Tensor]) -> bool:
    state = module.state_dict()
    return state.keys() == tensors.keys() and all(torch.equal(state[key], tensors[key]) for key in tensors)


def test_list_and_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `torch.hub.list` and `help` only support GitHub repositories, and use a cached one if available.
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "owner_ccop-hub_main").symlink_to(ROOT)
    repo = {"github": "owner/ccop-hub:main", "skip_validation": True, "trust_repo": True}
    names = torch.hub.list(**repo)
    assert {f"ccop_{arch}{end}" for arch in (*HUB_ARCHITECTURES, "resnet10t") for end in ("", "_fpn")} == set(names)
    for name in names:
        told = torch.hub.help(model=name, **repo)
        assert told.startswith("ResNet-")
        assert "ccop_resnet50" in told or name.startswith("ccop_resnet50")
    told = torch.hub.help(model="ccop_resnet50", **repo)
    for words in ("resnet50.ccop_coco_800ep", "hf-hub:ORG/NAME", '"random"', "(0.485, 0.456, 0.406)", "(N, 2048)"):
        assert words in told


def test_backbone_from_a_run(run: Path, tensors: dict[str, Tensor]) -> None:
    network = load("ccop_resnet18", weights=str(run))
    assert isinstance(network, ResNet)
    assert not network.training
    assert same(network, layouts.part(tensors, "backbone"))
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 512)
    assert network.forward_features(torch.rand(2, 3, 64, 96)).shape == (2, 512, 2, 3)
    shown = timm.data.resolve_model_data_config(network)
    assert shown["mean"] == pytest.approx((0.485, 0.456, 0.406))
    assert shown["std"] == pytest.approx((0.229, 0.224, 0.225))
    assert network.pretrained_cfg["tag"] == "ccop"


def test_features_only(run: Path, tensors: dict[str, Tensor]) -> None:
    network = load("ccop_resnet18", weights=str(run), features_only=True)
    images = torch.rand(1, 3, 64, 64)
    features = network(images)
    assert network.feature_info.channels() == [64, 64, 128, 256, 512]
    assert network.feature_info.reduction() == [2, 4, 8, 16, 32]
    pyramid = load("ccop_resnet18_fpn", weights=str(run))
    for mine, theirs in zip(pyramid.stages(images).values(), features[1:], strict=True):
        assert torch.equal(mine, theirs)


def test_pyramid_from_a_run(run: Path, tensors: dict[str, Tensor]) -> None:
    network = load("ccop_resnet18_fpn", weights=str(run / "exported"))
    assert isinstance(network, ResNetFPN)
    assert same(network, tensors)
    levels = network(torch.rand(1, 3, 128, 64))
    assert list(levels) == ["p2", "p3", "p4", "p5", "p6"]
    for name, level in levels.items():
        stride = network.strides[name]
        assert level.shape == (1, network.channels[name], 128 // stride, 64 // stride)
    assert set(network.channels.values()) == {FPN_CHANNELS}


@pytest.mark.parametrize("arch", [*HUB_ARCHITECTURES, "resnet10t"])
def test_random_networks(arch: str) -> None:
    one, same_seed, other = (load(f"ccop_{arch}", weights="random", seed=seed) for seed in (1, 1, 2))
    assert same(one, same_seed.state_dict())
    assert not torch.equal(one.layer1[0].conv1.weight, other.layer1[0].conv1.weight)
    assert same(load(f"ccop_{arch}_fpn", pretrained=False, seed=1).backbone, one.state_dict())


def test_a_state_dict(tensors: dict[str, Tensor]) -> None:
    body, fpn = layouts.part(tensors, "backbone"), layouts.part(tensors, "fpn")
    assert same(ccop_hub.load_backbone("resnet18", layouts.moco(body, fpn)["state_dict"]), body)
    assert same(ccop_hub.load_pyramid("resnet18", layouts.ccop(body, fpn)), tensors)


def test_no_weights_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry's default; if it is unavailable, what is available and how to get it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for arguments in ({}, {"pretrained": True}):
        with pytest.raises(UserError, match=r"resnet50\.ccop_coco_800ep: .*not cached .*give its path"):
            load("ccop_resnet50", **arguments)
        for name in ("ccop_resnet18", "ccop_resnet34_fpn", "ccop_resnet101"):
            with pytest.raises(UserError, match=r"no published weights for resnet\d+: pass weights='random'"):
                load(name, **arguments)


def test_the_weights_in_the_package_load_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    network = load("ccop_resnet10t")
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 512)
    assert same(network, ccop_hub.load("resnet10t.ccop_synthetic_21ep").state_dict())
    assert not same(network, load("ccop_resnet10t", weights="random").state_dict())
    with pytest.raises(UserError, match=r"resnet10t\.ccop_synthetic_21ep has no feature pyramid"):
        load("ccop_resnet10t_fpn")


def test_wrong_weights(run: Path, tensors: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match="is a resnet18, not a resnet50"):
        load("ccop_resnet50", weights=str(run))
    with pytest.raises(UserError, match="has no feature pyramid"):
        ccop_hub.load_pyramid("resnet18", layouts.part(tensors, "backbone"))
    with pytest.raises(AttributeError, match="load_everything"):
        ccop_hub.load_everything  # noqa: B018


FROM_ZIP = """
import json, sys, torch
repo, source, weights = sys.argv[1:]
network = torch.hub.load(repo, "ccop_resnet18", source=source, weights=weights, trust_repo=True, skip_validation=True)
import ccop_hub
print(json.dumps([ccop_hub.__file__, float(network.conv1.weight.double().sum())]))
"""


@pytest.mark.parametrize("source", ["local", "github"])
def test_zip_checkout(run: Path, tensors: dict[str, Tensor], tmp_path: Path, source: str) -> None:
    """Like GitHub's unpacked archive, in its folder or torch.hub's cache; the installed package is not used."""
    cache = tmp_path / "torch" / "hub"
    cache.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "main.zip", "w") as archive:
        for path in [ROOT / "hubconf.py", *(ROOT / "ccop_hub").rglob("*.py")]:
            archive.write(path, Path("owner_ccop-hub_main") / path.relative_to(ROOT))
    zipfile.ZipFile(tmp_path / "main.zip").extractall(cache)
    repo = str(cache / "owner_ccop-hub_main") if source == "local" else "owner/ccop-hub:main"
    environment = {**os.environ, "TORCH_HOME": str(tmp_path / "torch"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", FROM_ZIP, repo, source, str(run)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    file, total = json.loads(done.stdout.splitlines()[-1])
    assert Path(file).is_relative_to(cache)
    assert total == pytest.approx(float(tensors["backbone.conv1.weight"].double().sum()), rel=1e-9)


IMPORTS = """
import sys
import torch, torchvision, timm, safetensors, safetensors.torch, huggingface_hub
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import WeakFileLock, tqdm
before = {name.split(".")[0] for name in sys.modules}
import ccop_hub.hub
network = ccop_hub.hub.ccop_resnet18(weights=sys.argv[1])
print(*sorted({name.split(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)))
"""


def test_loading_imports_nothing_else(run: Path) -> None:
    """Imports nothing beyond what torch, torchvision, timm, safetensors and huggingface_hub import.

    This keeps `import ccop_hub` cheap: its own modules are small and add no other packages.
    """
    command = [sys.executable, "-W", "ignore", "-c", IMPORTS, str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ccop_hub"]
