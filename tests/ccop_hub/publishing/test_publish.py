from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from torch import Tensor

from ccop_hub.cli import main
from ccop_hub.errors import UserError
from ccop_hub.files import file_digest
from ccop_hub.formats.checkpoint import read_checkpoint, save_checkpoint
from ccop_hub.publishing.licence import licence_of
from ccop_hub.publishing.publish import publish
from ccop_hub.settings import PublishSettings
from ccop_hub.sources import registry

from ..conftest import FACTS
from ..hub_server import READER, TOKEN, Fault, HubServer

REPO = "lab/net"


def result_file(folder: Path, digest: str, **changes: Any) -> Path:
    """A result in ccop-eval's format."""
    content = {
        "schema_version": 1,
        "task": "detection",
        "protocol": "coco-fpn-4conv1fc-1x+short",
        "engine": {"name": "detectron2", "version": "0.6", "where": "registry", "compiled": False},
        "weights": {"name": "run", "digest": digest, "arch": "resnet18", "facts": {}},
        "loaded": "backbone+fpn",
        "data": {"name": "coco482", "digest": "sha256:1", "images": 82},
        "metrics": {"bbox/AP": 12.345678, "segm/AP": 10.5, "bbox/APs": None},
        "seed": 3,
        "notes": ["SyncBN became BN on one process"],
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "result.json"
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def settings(tiny_run: Path) -> PublishSettings:
    return PublishSettings(tiny_run, REPO)


@pytest.fixture(scope="module")
def tree(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a dry run for the ResNet-18, with one result."""
    folder = tmp_path_factory.mktemp("dry")
    digest = read_checkpoint(run).digest
    result = result_file(folder / "eval", digest)
    arguments = ["publish", str(run), "--repo", REPO, "--dry-run", "--out", str(folder / "tree")]
    assert main([*arguments, "--results", json.dumps([str(result)]), "--licence", "cc-by-4.0"]) == 0
    return folder / "tree"


def test_dry_run_writes_what_would_be_pushed(tree: Path, run: Path, tensors: dict[str, Tensor]) -> None:
    files = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "backbone_fpn.safetensors",
        "config.json",
        "detectron2.pkl",
        "detectron2.yaml",
        "facts.json",
        "model.safetensors",
        "results/1-detection-coco-fpn-4conv1fc-1x-short.json",
        "settings.yaml",
    }
    for name in ("backbone_fpn.safetensors", "facts.json"):
        assert (tree / name).read_bytes() == (run / "exported" / name).read_bytes()
    assert yaml.safe_load((tree / "settings.yaml").read_text()) == {"lr": 0.3, "backbone": "resnet18"}
    config = json.loads((tree / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["num_features"]) == ("resnet18", 0, 512)
    assert config["pretrained_cfg"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    for name in ("detectron2.pkl", "model.safetensors"):
        found = read_checkpoint(tree / name)
        kept = [key for key in found.tensors if not key.endswith("num_batches_tracked")]
        assert all(torch.equal(found.tensors[key], tensors[key]) for key in kept)
    assert yaml.safe_load((tree / "detectron2.yaml").read_text())["MODEL"]["WEIGHTS"] == "detectron2.pkl"


def test_a_dry_run_replaces_nothing_but_an_earlier_one(settings: PublishSettings, tmp_path: Path) -> None:
    mine = tmp_path / "project"
    mine.mkdir()
    (mine / "README.md").write_text("mine")
    asked = dataclasses.replace(settings, dry_run=True, out=mine)
    with pytest.raises(UserError, match="project holds something else than an earlier dry run"):
        publish(asked)
    assert {path.name: path.read_text() for path in mine.iterdir()} == {"README.md": "mine"}
    again = dataclasses.replace(asked, out=tmp_path / "new")
    assert publish(again).files == publish(again).files


def test_a_killed_dry_run_is_no_obstacle_but_an_export_is(
    settings: PublishSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = dataclasses.replace(settings, dry_run=True, out=tmp_path / "new")
    move = Path.replace

    def killed(source: Path, target: Path) -> Path:
        if target == tmp_path / "new" / "facts.json":
            os.kill(os.getpid(), signal.SIGKILL)
        return move(source, target)

    child = os.fork()
    if not child:
        monkeypatch.setattr(Path, "replace", killed)
        publish(asked)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / "new" / "config.json").exists()
    assert not (tmp_path / "new" / "README.md").exists()
    files = publish(asked).files
    assert {path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*")} == set(files)
    exported = tmp_path / "export"
    shutil.copytree(settings.run / "exported", exported)
    with pytest.raises(UserError, match="export holds something else"):
        publish(dataclasses.replace(asked, out=exported))


def test_without_a_server_nothing_is_checked_first(
    settings: PublishSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 cannot be reached \(Connection refused\).*--dry-run"):
        publish(dataclasses.replace(settings, run=tmp_path / "absent"))


def test_model_card(tree: Path, run: Path) -> None:
    card = ModelCard.load(tree / "README.md")
    assert (card.data.license, card.data.library_name, card.data.model_name) == ("cc-by-4.0", "timm", REPO)
    assert card.data.eval_results is not None
    rows = [(one.dataset_name, one.metric_type, one.metric_value, one.task_type) for one in card.data.eval_results]
    assert rows == [
        ("coco482", "bbox/AP", 12.346, "object-detection"),
        ("coco482", "segm/AP", 10.5, "object-detection"),
    ]
    digest = read_checkpoint(run).digest
    for words in (
        digest,
        "`backbone_fpn.safetensors` contains the backbone and feature pyramid, `model.safetensors` the backbone",
        "`detectron2.pkl` the backbone and feature pyramid for Detectron2",
        "CCOP (Curricular",
        "| images | 482 |",
        "| steps | 1200 |",
        "| detection | coco-fpn-4conv1fc-1x+short | coco482 (82 images) | backbone+fpn | detectron2 0.6 | 3 |",
        "bbox/AP 12.35",
        "SyncBN became BN on one process",
        'ccop_hub.load("hf-hub:lab/net", pyramid=True)',
        'timm.create_model("hf-hub:lab/net", pretrained=True)',
        "torchvision.models.resnet18()",
        "cfg.MODEL.WEIGHTS",
        "## Limits",
        "cc-by-4.0",
    ):
        assert words in card.text


def test_results_of_other_weights_are_refused(settings: PublishSettings, tmp_path: Path, hub: HubServer) -> None:
    digest = read_checkpoint(settings.run).digest
    wrong = [
        (result_file(tmp_path / "a", "sha256:0"), "measured with other weights"),
        (result_file(tmp_path / "b", digest, schema_version=2), "not a result of schema 1"),
        (result_file(tmp_path / "c", digest, metrics=[1]), "not a complete result"),
        (tmp_path / "nowhere", "no result at"),
    ]
    (tmp_path / "text.json").write_text("text")
    for path, said in [*wrong, (tmp_path / "text.json", "is not JSON")]:
        with pytest.raises(UserError, match=said):
            publish(dataclasses.replace(settings, results=[path]))
    assert hub.requests == []


def test_push_and_push_again(settings: PublishSettings, hub: HubServer, tmp_path: Path) -> None:
    told = publish(settings).told
    commits = hub.repositories[REPO].commits
    assert len(commits) == 2
    assert f"commit {commits[-1].oid}" in told
    assert not hub.repositories[REPO].private
    publish(dataclasses.replace(settings, dry_run=True, out=tmp_path / "dry"))
    for path in (tmp_path / "dry").iterdir():
        assert commits[-1].files[path.name] == path.read_bytes()
    puts = hub.count("put")
    assert "no new commit" in publish(settings).told
    assert len(commits) == 2
    assert hub.count("put") == puts


def test_private_and_revision(settings: PublishSettings, hub: HubServer) -> None:
    publish(dataclasses.replace(settings, private=True, revision="v2"))
    repository = hub.repositories[REPO]
    assert repository.private
    assert set(repository.branches) == {"main", "v2"}
    assert "README.md" in repository.commits[-1].files
    assert repository.branches["v2"] == repository.commits[-1].oid
    assert "no new commit" in publish(dataclasses.replace(settings, private=True, revision="v2")).told


def damaged(run: Path, folder: Path, change: str) -> Path:
    shutil.copytree(run, folder)
    weights, facts = folder / "exported" / "backbone_fpn.safetensors", folder / "exported" / "facts.json"
    if change == "weights":
        content = bytearray(weights.read_bytes())
        content[-5] ^= 0x10
        weights.write_bytes(content)
    elif change == "no facts":
        facts.unlink()
    else:
        facts.write_text(facts.read_text().replace("sha256:", "sha256:0"))
    return folder


@pytest.mark.parametrize("change", ["weights", "no facts", "digest"])
def test_nothing_is_pushed_unless_the_checks_pass(
    settings: PublishSettings, hub: HubServer, tmp_path: Path, change: str
) -> None:
    run = damaged(settings.run, tmp_path / "run", change)
    with pytest.raises(UserError, match="fails its checks, so nothing was pushed"):
        publish(dataclasses.replace(settings, run=run))
    assert hub.requests == []


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("kind", ["create", "preupload", "batch", "put", "commit"])
@pytest.mark.parametrize("fault", [Fault(500), Fault(429), Fault(0)], ids=["500", "429", "cut"])
def test_passing_faults_are_overcome(settings: PublishSettings, hub: HubServer, kind: str, fault: Fault) -> None:
    hub.faults[kind] = [fault]
    publish(settings)
    assert hub.faults[kind] == []
    assert len(hub.repositories[REPO].commits) == 2
    assert len(hub.repositories[REPO].commits[-1].files) == 7


@pytest.mark.usefixtures("no_waiting")
def test_conflicts_are_retried(settings: PublishSettings, hub: HubServer) -> None:
    hub.faults["commit"] = [Fault(409), Fault(412)]
    publish(settings)
    assert len(hub.repositories[REPO].commits) == 2


@pytest.mark.usefixtures("no_waiting")
def test_an_interrupted_push_resumes(
    settings: PublishSettings, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccop_hub.publishing.publish.ATTEMPTS", 1)
    hub.faults["commit"] = [Fault(0)]
    with pytest.raises(UserError, match="rerun the command to resume"):
        publish(settings)
    assert len(hub.repositories[REPO].commits) == 1
    sent = hub.count("put")
    assert sent == len(hub.store)
    assert sent == 2
    publish(settings)
    assert hub.count("put") == sent
    assert len(hub.repositories[REPO].commits) == 2


@pytest.mark.usefixtures("no_waiting")
def test_a_server_that_stays_busy(settings: PublishSettings, hub: HubServer) -> None:
    hub.faults["commit"] = [Fault(503)] * 50
    with pytest.raises(UserError, match=r"busy \(HTTP 503\) 4 times: run the same command again later"):
        publish(settings)


def test_refusals(settings: PublishSettings, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for token, said in (("hf_unknown", "HTTP 401.*hf auth login"), (READER, "HTTP 403.*write access")):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(UserError, match=said):
            publish(settings)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.faults["create"] = [Fault(404)]
    with pytest.raises(UserError, match=r"HTTP 404.*organisation"):
        publish(settings)
    hub.faults["create"] = [Fault(418)]
    with pytest.raises(UserError, match="HTTP 418"):
        publish(settings)
    assert hub.repositories == {}


def test_wrong_names_and_offline(settings: PublishSettings, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("justname", "a/b/c", "lab/net with spaces"):
        with pytest.raises(UserError, match="is not a repository name: give ORG/NAME"):
            publish(dataclasses.replace(settings, repo=name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        publish(settings)
    assert hub.requests == []


LOADERS = """
import hashlib, sys, timm, torch
repo, source = sys.argv[1:]
def digest(module):
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()
from ccop_hub.sources.resolve import resolve
backbone = torch.hub.load(source, "ccop_resnet18", source="local", weights=f"hf-hub:{repo}")
pyramid = torch.hub.load(source, "ccop_resnet18_fpn", source="local", weights=f"hf-hub:{repo}")
theirs = timm.create_model(f"hf-hub:{repo}", pretrained=True)
print(digest(backbone), digest(pyramid.backbone), digest(theirs), digest(pyramid), resolve(f"hf-hub:{repo}").digest)
assert list(theirs.pretrained_cfg["mean"]) == [0.485, 0.456, 0.406], theirs.pretrained_cfg["mean"]
"""


def test_published_weights_load_everywhere(
    hub: HubServer, run: Path, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    """torch.hub, timm and the resolver, each in a subprocess that finds the Hub through its environment."""
    import hashlib

    publish(PublishSettings(run, REPO))
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"TORCH_HOME": str(tmp_path / "torch"), "OMP_NUM_THREADS": "1", "HF_TOKEN": TOKEN}
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-W", "ignore", "-c", LOADERS, REPO, root]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    backbone, of_pyramid, by_timm, pyramid, digest = done.stdout.split()

    def expected(prefix: str) -> str:
        found = hashlib.sha256()
        for name, value in tensors.items():
            if name.startswith(prefix):
                found.update(name.removeprefix(prefix).encode() + value.numpy().tobytes())
        return found.hexdigest()

    assert backbone == of_pyramid == by_timm == expected("backbone.")
    assert pyramid == expected("")
    assert digest == file_digest(run / "exported" / "backbone_fpn.safetensors")


@pytest.mark.parametrize(
    "repo", ["../..", "a/b.git", "a b/c", "a/b/c", "a", "/b", "a/", "a/..", "-a/b", "a/b--c", "a/" + "x" * 97, "a\n/b"]
)
def test_names_of_repositories_are_checked_before_anything_is_written(
    settings: PublishSettings, repo: str, tmp_path: Path
) -> None:
    asked = dataclasses.replace(settings, repo=repo, dry_run=True, out=tmp_path / "published")
    with pytest.raises(UserError, match="is not a repository name") as raised:
        publish(asked)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "published").exists()


OWN_FACTS = {"settings": {"epochs": 1}}
MOCO_FACTS = registry.entry("resnet50.mocov2_in1k_800ep").facts()


@pytest.mark.parametrize(
    ("facts", "given", "licence"),
    [
        (OWN_FACTS, None, "apache-2.0"),
        (OWN_FACTS, "MIT", "mit"),
        (MOCO_FACTS, None, "cc-by-nc-4.0"),
        (MOCO_FACTS, "CC-BY-NC-4.0", "cc-by-nc-4.0"),
        ({"objective": "ccop"}, "cc-by-4.0", "cc-by-4.0"),
        ({"licence": "not stated by the authors"}, "cc-by-4.0", "cc-by-4.0"),
    ],
)
def test_the_licence(facts: dict[str, Any], given: str | None, licence: str) -> None:
    assert licence_of(facts, given) == licence


@pytest.mark.parametrize(
    ("facts", "given", "said"),
    [
        (MOCO_FACTS, "apache-2.0", "licensed under cc-by-nc-4.0, not apache-2.0"),
        ({"objective": "ccop"}, None, "pass --licence"),
        ({"licence": "not stated by the authors"}, None, "pass --licence"),
        (OWN_FACTS, "do what you like", "SPDX"),
    ],
)
def test_licences_that_are_refused(facts: dict[str, Any], given: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        licence_of(facts, given)


def test_weights_without_an_objective_have_no_empty_words(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "foreign", tensors, {"arch": "resnet18", "input": FACTS["input"]})
    settings = PublishSettings(
        tmp_path / "foreign", "lab/net", dry_run=True, out=tmp_path / "published", licence="cc-by-nc-4.0"
    )
    publish(settings)
    card = (tmp_path / "published" / "README.md").read_text()
    data = yaml.safe_load(card.split("---")[1])
    assert data["tags"] == ["ccop-hub", "self-supervised-learning", "resnet18"]
    assert data["license"] == "cc-by-nc-4.0"
    assert "unknown" not in card
    assert "tag" not in json.loads((tmp_path / "published" / "config.json").read_text())["pretrained_cfg"]


def test_each_result_has_the_task_and_protocol_of_its_own(settings: PublishSettings, tmp_path: Path) -> None:
    digest = read_checkpoint(settings.run).digest
    files = []
    for task, protocol, value in (("knn", "knn-20", 40.0), ("linear", "linear-moco-lr30", 60.0)):
        record = {
            "schema_version": 1,
            "task": task,
            "protocol": protocol,
            "engine": {"name": "lightning", "version": "2"},
            "weights": {"digest": digest},
            "loaded": "backbone",
            "data": {"name": "scenes", "images": 8},
            "metrics": {"top1": value},
            "seed": 0,
        }
        files.append(tmp_path / f"{task}.json")
        files[-1].write_text(json.dumps(record))
    out = tmp_path / "published"
    publish(dataclasses.replace(settings, dry_run=True, out=out, results=files))
    (model,) = yaml.safe_load((out / "README.md").read_text().split("---")[1])["model-index"]
    shown = {
        entry["task"]["name"]: [(entry["dataset"]["config"], metric["value"]) for metric in entry["metrics"]]
        for entry in model["results"]
    }
    assert shown == {
        "knn (knn-20)": [("knn-20", 40.0)],
        "linear (linear-moco-lr30)": [("linear-moco-lr30", 60.0)],
    }
