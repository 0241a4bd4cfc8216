from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ccop_hub
from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.errors import UserError
from ccop_hub.files import file_digest
from ccop_hub.formats.checkpoint import save_checkpoint
from ccop_hub.formats.weights_files import WEIGHTS_FILE
from ccop_hub.publishing.verification import verify
from ccop_hub.sources import google_drive, location, registry
from ccop_hub.sources.registry import Entry
from ccop_hub.sources.resolve import locate, resolve

from .. import foreign_layouts as layouts
from ..hub_server import Fault, HubServer

REPO = "someone/network"


def equal(found: object, tensors: dict[str, Tensor]) -> bool:
    assert isinstance(found, dict)
    return found.keys() == tensors.keys() and all(torch.equal(found[key], tensors[key]) for key in tensors)


def test_random_depends_on_architecture_and_seed_alone() -> None:
    state = torch.random.get_rng_state()
    one, again, other = (
        resolve("random", "resnet18"),
        resolve("random", "resnet18", seed=0),
        resolve("random", "resnet18", 1),
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.digest == again.digest != other.digest
    assert equal(dict(one.tensors), dict(build_resnet_fpn("resnet18", 0).state_dict()))
    assert (one.name, one.facts["objective"], one.parts) == ("random", "random", ("backbone", "fpn"))
    with pytest.raises(UserError, match="need an architecture: give one, such as resnet18"):
        resolve("random")
    with pytest.raises(UserError, match="no network named 'resnet19'"):
        resolve("random", "resnet19")


def test_paths_and_state_dicts(run: Path, tensors: dict[str, Tensor]) -> None:
    for place in (run, str(run), run / "exported", str(run / "exported" / WEIGHTS_FILE)):
        assert equal(dict(resolve(place, "resnet18").tensors), tensors)
    assert equal(dict(resolve({"epoch": 3, "state_dict": tensors}).tensors), tensors)
    found = resolve(tensors)
    assert (found.name, found.format, found.arch) == ("state dict", "canonical", "resnet18")
    assert equal(dict(found.tensors), tensors)


def test_another_architecture_is_an_error(run: Path) -> None:
    with pytest.raises(UserError, match="is a resnet18, not a resnet50: request resnet18"):
        resolve(run, "resnet50")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet50", "(resnet50 is an architecture); give a registry name"),
        ("resnet50.mocov2_in1k_20ep", "did you mean resnet50.mocov2_in1k_200ep?"),
        ("nowhere.pth", "a file or folder, hf-hub:ORG/NAME"),
        ("hf-hub:justname", "not of the form hf-hub:ORG/NAME"),
        ("http://example.invalid/a.pth", "use https"),
    ],
)
def test_every_error_names_the_fix(name: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        resolve(name)
    assert said in str(raised.value)


# --- the registry


def publish(monkeypatch: pytest.MonkeyPatch, hub: HubServer, file: Path, **changes: object) -> None:
    """Serve a file on loopback and register it."""
    content = file.read_bytes()
    oid = hashlib.sha256(content).hexdigest()
    hub.store[oid] = content
    entry = {
        "arch": "resnet18",
        "objective": "mocov2",
        "url": f"{hub.url}/store/{oid}",
        "formats": ("moco",),
        "digest": f"md5:{hashlib.md5(content).hexdigest()[:8]}",
        "licence": "CC-BY-NC-4.0",
        "data": "ImageNet-1k",
        "epochs": 200,
        "parts": ("backbone", "heads"),
        "paper": "arXiv:2003.04297",
        "homepage": "https://example.invalid",
        **changes,
    }
    monkeypatch.setattr(registry, "REGISTRY", {**registry.REGISTRY, "resnet18.test": Entry(**entry)})  # type: ignore[arg-type]


@pytest.fixture
def moco_file(tensors: dict[str, Tensor], tmp_path: Path) -> Path:
    body, fpn = layouts.part(tensors, "backbone"), layouts.part(tensors, "fpn")
    torch.save(layouts.moco(body, fpn), tmp_path / "moco.pth.tar")
    return tmp_path / "moco.pth.tar"


def test_registry_name(
    monkeypatch: pytest.MonkeyPatch, hub: HubServer, moco_file: Path, tensors: dict[str, Tensor]
) -> None:
    publish(monkeypatch, hub, moco_file)
    found = resolve("resnet18.test", "resnet18")
    assert (found.name, found.format, found.digest) == ("resnet18.test", "moco", file_digest(moco_file))
    assert torch.equal(found.tensors["backbone.conv1.weight"], tensors["backbone.conv1.weight"])
    assert found.facts["dataset"] == {"name": "ImageNet-1k"}
    assert (found.facts["licence"], found.facts["objective"]) == ("CC-BY-NC-4.0", "mocov2")
    hub.close()
    assert resolve("resnet18.test").digest == found.digest
    hub.__init__()  # type: ignore[misc]


def test_registry_digest_and_format_are_enforced(
    monkeypatch: pytest.MonkeyPatch, hub: HubServer, moco_file: Path
) -> None:
    publish(monkeypatch, hub, moco_file, digest="md5:00000000")
    with pytest.raises(UserError, match=r"resnet18\.test: .*does not have the published digest md5:00000000"):
        resolve("resnet18.test")
    publish(monkeypatch, hub, moco_file, formats=("ccop",))
    with pytest.raises(UserError, match=r"is a resnet18 in moco format, which is not resnet18\.test"):
        resolve("resnet18.test")


def test_registry_weights_in_the_package_need_no_network(
    monkeypatch: pytest.MonkeyPatch, hub: HubServer, moco_file: Path, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(location, "PACKAGED", tmp_path)
    half = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    file = save_checkpoint(tmp_path / "shipped", half, {"arch": "resnet18", "objective": "ccop"})
    own = {"url": "package:shipped", "formats": ("canonical",), "objective": "ccop", "digest": file_digest(file)}
    publish(monkeypatch, hub, moco_file, **own)
    monkeypatch.setattr(registry, "DEFAULTS", {"resnet18": "resnet18.test"})
    found = resolve("resnet18.test")
    assert (found.digest, found.facts["objective"]) == (file_digest(file), "ccop")
    network = ccop_hub.load_backbone("resnet18")
    assert network.conv1.weight.dtype == torch.float32
    assert torch.equal(network.conv1.weight, half["backbone.conv1.weight"].float())
    publish(monkeypatch, hub, moco_file, **{**own, "digest": "sha256:00000000"})
    with pytest.raises(UserError, match=r"resnet18\.test: .* does not have the digest sha256:0+: reinstall"):
        resolve("resnet18.test")


def test_registry_file_on_google_drive(monkeypatch: pytest.MonkeyPatch, hub: HubServer, moco_file: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    def fetch(address: str, published: str | None) -> Path:
        asked.append((address, published))
        return moco_file

    monkeypatch.setattr(google_drive, "fetch_drive", fetch)
    publish(monkeypatch, hub, moco_file, url="gdrive:abc", digest=None)
    assert resolve("resnet18.test").source == str(moco_file)
    assert asked == [("gdrive:abc", None)]


def test_https_address(hub: HubServer, run: Path) -> None:
    content = (run / "exported" / WEIGHTS_FILE).read_bytes()
    oid = hashlib.sha256(content).hexdigest()
    hub.store[oid] = content
    found = resolve(f"{hub.url}/store/{oid}#sha256={oid}")
    assert (found.digest, found.facts["dataset"]["images"]) == (f"sha256:{oid}", 482)


# --- the Hugging Face Hub


@pytest.fixture
def tiny_repo(hub: HubServer, tiny_run: Path) -> HubServer:
    hub.create(REPO)
    files = {path.name: path.read_bytes() for path in (tiny_run / "exported").iterdir()}
    hub.store |= {hashlib.sha256(content).hexdigest(): content for content in files.values()}
    hub.commit(REPO, "main", files, {WEIGHTS_FILE})
    return hub


def test_hugging_face_repository(tiny_repo: HubServer, tiny_run: Path) -> None:
    found = resolve(f"hf-hub:{REPO}", "test_resnet")
    assert found.name == f"hf-hub:{REPO}"
    assert found.digest == file_digest(tiny_run / "exported" / WEIGHTS_FILE)
    assert found.facts["dataset"]["images"] == 482
    assert (locate(f"hf-hub:{REPO}").parent / "facts.json").is_file()
    assert tiny_repo.count("content") >= 1


def test_hugging_face_revisions(tiny_repo: HubServer, tiny_run: Path) -> None:
    published = tiny_repo.repositories[REPO].commits[-1]
    tiny_repo.commit(REPO, "main", {}, set())
    tiny_repo.repositories[REPO].branches["v1"] = published.oid
    for revision in ("v1", published.oid):
        assert resolve(f"hf-hub:{REPO}@{revision}").arch == "test_resnet"
    with pytest.raises(
        UserError, match=r"contains none of backbone_fpn\.safetensors, backbone\.safetensors, model\.safetensors"
    ):
        resolve(f"hf-hub:{REPO}")
    with pytest.raises(UserError, match="has no revision 'v9'"):
        resolve(f"hf-hub:{REPO}@v9")


def test_hugging_face_cache_serves_without_network(tiny_repo: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = resolve(f"hf-hub:{REPO}").digest
    before = len(tiny_repo.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve(f"hf-hub:{REPO}").digest == digest
    with pytest.raises(UserError, match="hf-hub:someone/other is not cached and HF_HUB_OFFLINE"):
        resolve("hf-hub:someone/other")
    assert len(tiny_repo.requests) == before
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert resolve(f"hf-hub:{REPO}").digest == digest
    with pytest.raises(UserError, match=r"not cached and http://127\.0\.0\.1:9 cannot be reached"):
        resolve("hf-hub:someone/other")


def test_hugging_face_refusals(tiny_repo: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_repo.repositories[REPO].private = True
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match=r"no repository hf-hub:someone/network, or it is private.*hf auth login"):
        resolve(f"hf-hub:{REPO}")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    tiny_repo.faults["resolve"] = [Fault(403, headers={"X-Error-Code": "GatedRepo"})]
    with pytest.raises(UserError, match="is gated: accept its terms"):
        resolve(f"hf-hub:{REPO}")
    assert resolve(f"hf-hub:{REPO}").arch == "test_resnet"


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("fault", [Fault(500, after=50_000), Fault(0, after=1000)])
def test_hugging_face_downloads_are_resumed(tiny_repo: HubServer, tiny_run: Path, fault: Fault) -> None:
    tiny_repo.faults["content"] = [fault]
    assert resolve(f"hf-hub:{REPO}").digest == file_digest(tiny_run / "exported" / WEIGHTS_FILE)


def test_a_damaged_cache_is_noticed(tiny_repo: HubServer) -> None:
    file = locate(f"hf-hub:{REPO}").resolve()
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged .*delete it and try again"):
        resolve(f"hf-hub:{REPO}")


def test_timm_repository(hub: HubServer, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    from ccop_hub.formats.conversion import convert

    convert(resolve(tensors), "timm", tmp_path / "timm")
    hub.create(REPO)
    files = {path.name: path.read_bytes() for path in (tmp_path / "timm").iterdir()}
    hub.store |= {hashlib.sha256(content).hexdigest(): content for content in files.values()}
    hub.commit(REPO, "main", files, {"model.safetensors"})
    found = resolve(f"hf-hub:{REPO}")
    assert (found.format, found.arch, found.parts) == ("timm", "resnet18", ("backbone",))
    shutil.rmtree(tmp_path / "timm")


def test_registry_is_whole() -> None:
    for name, entry in registry.REGISTRY.items():
        assert name.startswith(f"{entry.arch}.")
        assert entry.url.startswith(("https://", "gdrive:", "package:"))
        assert entry.digest is None or entry.digest.partition(":")[0] in ("md5", "sha256")
        assert entry.facts()["input"]["channel_order"] == "RGB"
    assert set(registry.DEFAULTS.values()) <= set(registry.REGISTRY)
    # No verifiable source publishes CCOP's own numbers, so none are quoted.
    assert registry.REGISTRY["resnet50.ccop_coco_800ep"].results == ()
    assert registry.default_name("resnet50") == "resnet50.ccop_coco_800ep"
    with pytest.raises(
        UserError, match=r"no published weights for resnet18: pass weights='random'.*\(resnet10t, resnet50\)"
    ):
        registry.default_name("resnet18")
    with pytest.raises(UserError, match="no weights named 'x' in the registry"):
        registry.entry("x")


def test_weights_in_the_package_are_what_their_card_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, entry in registry.REGISTRY.items():
        if not entry.url.startswith("package:"):
            continue
        assert entry.digest is not None
        folder = locate(name)
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert name in card
        assert entry.licence in card
        assert sum(file.stat().st_size for file in folder.iterdir()) <= 15e6
        for result in entry.results:
            for value in result.metrics.values():
                assert f"{value:.2f}" in card
        weights = resolve(name)
        assert (weights.arch, weights.parts, weights.digest) == (entry.arch, entry.parts, entry.digest)
        assert {check.name: check.passed for check in verify(folder)} == dict.fromkeys(
            ("digest", "tensors", "features"), True
        )
        assert (folder / "settings.yaml").is_file()


def test_networks_trained_on_bgr_take_rgb(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    body = layouts.part(tensors, "backbone")
    torch.save({"model": layouts.blobs(body)}, tmp_path / "msra.pth")
    found = resolve(tmp_path / "msra.pth")
    assert torch.equal(found.tensors["backbone.conv1.weight"], body["conv1.weight"][:, [2, 1, 0]])
    assert torch.equal(found.tensors["backbone.layer1.0.conv1.weight"], body["layer1.0.conv1.weight"])
    assert found.facts["input"] == {
        "mean": [123.675, 116.28, 103.53],
        "std": [1.0, 1.0, 1.0],
        "channel_order": "RGB",
        "range": "0-255",
    }
