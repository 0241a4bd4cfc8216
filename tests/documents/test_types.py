"""Every field of every document that a program reads is replaced by values of other types.

The reader must refuse the document in one line that names the file, or accept it; an accepted document must also be
shown. No other exception is allowed.
"""

from __future__ import annotations

import copy
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ccop_eval.results.comparison import group_results
from ccop_eval.results.page import page
from ccop_eval.results.result import Result
from ccop_eval.results.tables import comma_separated, document, markdown
from ccop_eval.settings import LinearSettings, SegmentationSettings
from ccop_pretrain.settings import ProposalSettings
from ccop_pretrain.settings import RunSettings as PretrainSettings
from ccop_pretrain.training.metrics_file import MetricsFile
from ccop_pretrain.training.run_folder import RunFolder

from ccop_hub.architectures import build_backbone
from ccop_hub.coco.normalised import normalise
from ccop_hub.console.config import read_config
from ccop_hub.description import Description
from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.formats.facts import checked_facts
from ccop_hub.formats.fingerprint import fingerprint
from ccop_hub.formats.timm_folder import timm_facts
from ccop_hub.formats.weights_files import facts_in
from ccop_hub.image_sources.tar_index import TarIndex
from ccop_hub.normalization import INPUT_FACTS
from ccop_hub.proposals.shards import ImageProposals, notes_of, write_shard
from ccop_hub.proposals.store import ProposalStore
from ccop_hub.publishing.evaluations import read_evaluation
from ccop_hub.publishing.licence import licence_of
from ccop_hub.publishing.model_card import model_card
from ccop_hub.publishing.verification import _digest_check, fingerprint_check
from ccop_hub.reports import print_checks, print_description
from ccop_hub.saved_settings import differences, plain, read_settings
from ccop_hub.sources.resolve import in_rgb

from ..eval.conftest import make_result
from ..proposal_manifest import complete_manifest

RAW = {"NaN": "\0nan", "1e400": "\0huge", "-Infinity": "\0minus"}
"""JSON text that no Python value is written as -> the placeholder that stands for it."""

DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]

WRONG: list[Any] = [
    *(None, True, -1, 0, 1.5, 10**30, 1e308, "", "text", "9" * 400, "\ud800\x1b[31m\n|", [], [1], {}, {"a": 1}, DEEP),
    *RAW.values(),
]

FEW = [None, True, 10**30, "\ud800\x1b[31m\n|", [], {"a": 1}, DEEP, RAW["NaN"]]
"""For documents that take longer to show."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document, the document included; of a list, only the first item."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else []
    for key, item in pairs:
        yield from places(item, (*path, key))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a document with another value in one place."""
    if not path:
        return value
    changed = copy.deepcopy(document)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return changed


def to_json(document: Any) -> str:
    text = json.dumps(document)
    for raw, mark in RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text


def to_yaml(document: Any) -> str:
    """JSON is YAML but for these two numbers."""
    return to_json(document).replace("NaN", ".nan").replace("-Infinity", "-.inf")


@dataclass(frozen=True)
class Border:
    """A document and what reads it.

    Attributes:
        sound: a valid document.
        write: writes a document into a folder.
        read: reads the folder, and shows what it has read.
        wrong: values to put in place of each field.
    """

    sound: Callable[[], Any]
    write: Callable[[Path, Any], object]
    read: Callable[[Path], object]
    wrong: Sequence[Any] = field(default_factory=lambda: WRONG)


ARCH = "test_resnet"
DIGEST = "0" * 64


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"backbone.{name}": value for name, value in build_backbone(ARCH).state_dict().items()}


TENSORS = tensors()
FINGERPRINT = fingerprint(ARCH, TENSORS)

FACTS: dict[str, Any] = {
    "arch": ARCH,
    "objective": "ccop",
    "parts": ["backbone"],
    "dataset": {"name": "scenes", "images": 3, "digest": "sha256:0"},
    "steps": 12,
    "epochs": 2.5,
    "batch_size": 4,
    "image_size": 32,
    "input": dict(INPUT_FACTS),
    "settings": {"lr": 0.3},
    "licence": "mit",
    "versions": {"torch": "2"},
    "created": "2026-01-02T03:04:05+00:00",
}


def weights_with(facts: dict[str, Any]) -> Weights:
    """Weights as `read_checkpoint` returns them."""
    return Weights("w", ARCH, TENSORS, {"input": INPUT_FACTS, **facts, "arch": ARCH}, "sha256:1", "w", "canonical")


def show_facts(facts: dict[str, Any]) -> None:
    weights = in_rgb(weights_with(facts))
    str(model_card(weights, "org/name", licence_of(weights.facts, None), [])).encode()
    print_description(Description("w", ARCH, "w", "d", "f", ("backbone",), (), "", (), weights.facts, (), 1, {}, "u"))


def read_facts(folder: Path) -> None:
    path = folder / "a.json"
    show_facts(checked_facts(facts_in({"ccop": path.read_text()}, "ccop", path), path))


def read_timm(folder: Path) -> None:
    facts = timm_facts(folder / "config.json")
    show_facts({"licence": "mit", **(facts or {})})


def read_fingerprint(folder: Path) -> None:
    path = folder / "a.json"
    facts = checked_facts(facts_in({"ccop": path.read_text()}, "ccop", path), path)
    check = fingerprint_check(weights_with(facts))
    print_checks([check])
    assert check.told.isprintable() or "\n" not in check.told


def read_recorded(folder: Path) -> None:
    print_checks([_digest_check(folder / "backbone.safetensors")])


TIMM = {
    "architecture": ARCH,
    "num_classes": 0,
    "num_features": 512,
    "pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "tag": "a"},
}


def write_recorded(folder: Path, facts: Any) -> None:
    (folder / "backbone.safetensors").write_bytes(b"weights")
    (folder / "facts.json").write_text(to_json(facts))


def show_result(folder: Path) -> None:
    result = Result.read(folder)
    groups = group_results([result, result])
    page(groups)
    for text in (markdown(groups), comma_separated(groups), json.dumps(document(groups)), result._repr_html_()):
        text.encode()


def show_evaluation(folder: Path) -> None:
    evaluation = read_evaluation(folder, "sha256:1")
    str(model_card(weights_with(FACTS), "org/name", "mit", [evaluation])).encode()


BOXES = np.array([[0, 0, 10, 10], [5, 5, 20, 18]], np.float32)
ROWS = [ImageProposals(name, 32, 24, BOXES, 100, 7) for name in ("a.png", "b.png")]


def manifest() -> Any:
    return complete_manifest(DIGEST)


def write_manifest(folder: Path, content: Any) -> None:
    write_shard(folder / "proposals-00000.parquet", ROWS, notes_of(ROWS, {}, DIGEST), 0)
    (folder / "manifest.json").write_text(to_json(content))


def write_notes(folder: Path, notes: Any) -> None:
    write_manifest(folder, manifest())
    path = folder / "proposals-00000.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"ccop": to_json(notes).encode()}), path)


def show_proposals(folder: Path) -> None:
    store = ProposalStore.open(folder)
    assert store.boxes("a.png").shape == (2, 4)
    store.require(["a.png", "b.png"])


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 3}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [0, 0, 2, 2],
            "area": 4,
            "iscrowd": 0,
            "segmentation": [[0, 0, 2, 0, 2, 2]],
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 1,
            "bbox": [1, 1, 1, 1],
            "segmentation": {"size": [3, 4], "counts": [12]},
        },
    ],
    "categories": [{"id": 1, "name": "thing", "supercategory": "all"}],
}


def write_tar(folder: Path, headers: Any) -> None:
    headers = headers if isinstance(headers, dict) else {"path": headers}
    with tarfile.open(folder / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.png")
        member.size = 3
        member.pax_headers = {
            str(key).encode(errors="replace").decode(): str(value).encode(errors="replace").decode()
            for key, value in headers.items()
        }
        archive.addfile(member, io.BytesIO(b"abc"))


SETTINGS: dict[str, Any] = {
    "pretrain": PretrainSettings(images="i", out="o", objective="mocov2"),
    "proposals": ProposalSettings(images="i", out="o"),
    "linear": LinearSettings(weights="w", data="d", out="o"),
    "segmentation": SegmentationSettings(weights="w", data="d", out="o"),
}


def settings_border(name: str) -> Border:
    made = SETTINGS[name]
    required = {field.name: getattr(made, field.name) for field in fields(made) if field.default is MISSING}

    def sound() -> Any:
        return plain(made)

    def read(folder: Path) -> None:
        path = folder / "settings.yaml"
        ", ".join(differences(read_settings(path), made, ()))
        content, _ = read_config("program", path, list(sound()))
        type(made)(**{**required, **content})

    return Border(sound, lambda folder, content: (folder / "settings.yaml").write_text(to_yaml(content)), read, FEW)


def json_border(sound: Callable[[], Any], name: str, read: Callable[[Path], object]) -> Border:
    return Border(sound, lambda folder, content: (folder / name).write_text(to_json(content)), read)


METRICS = [{"step": "1", "loss": "2.5"}, {"step": "2", "loss": ""}]


def write_metrics(folder: Path, rows: Any) -> None:
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    lines = ["step,loss", *(f"{row.get('step')},{row.get('loss')}" for row in rows)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n", errors="replace")


def read_metrics(folder: Path) -> None:
    metrics = MetricsFile(folder / "metrics.csv")
    metrics.last()
    metrics.keep_until(1)
    metrics.last()


def images_file(folder: Path) -> None:
    RunFolder(folder).require_same_images(3, "sha256:0")


BORDERS: dict[str, Border] = {
    "facts in safetensors": json_border(lambda: FACTS, "a.json", read_facts),
    "fingerprint in facts": json_border(lambda: {"fingerprint": FINGERPRINT}, "a.json", read_fingerprint),
    "facts.json": Border(lambda: {"digest": "sha256:0", "file": "backbone.safetensors"}, write_recorded, read_recorded),
    "timm config.json": json_border(lambda: TIMM, "config.json", read_timm),
    "result.json": Border(
        lambda: make_result().document(),
        lambda folder, content: (folder / "result.json").write_text(to_json(content)),
        show_result,
        FEW,
    ),
    "result.json for a card": json_border(lambda: make_result().document(), "result.json", show_evaluation),
    "manifest.json": Border(manifest, write_manifest, show_proposals),
    "notes of a shard": Border(
        lambda: {"settings": DIGEST, "rows": 2, "boxes": 4, "empty": 0, "skipped": {"c.png": "why"}},
        write_notes,
        show_proposals,
    ),
    "COCO JSON": json_border(lambda: COCO, "a.json", lambda folder: normalise(folder / "a.json")),
    "images.json": json_border(lambda: {"images": 3, "digest": "sha256:0"}, "images.json", images_file),
    "metrics.csv": Border(lambda: METRICS, write_metrics, read_metrics),
    "pax headers": Border(
        lambda: {"path": "a.png", "size": 3, "mtime": 1.5, "uid": 1, "linkpath": "b", "comment": "c"},
        write_tar,
        lambda folder: TarIndex.read(folder, ["a.tar"]),
    ),
    **{f"settings.yaml of {name}": settings_border(name) for name in SETTINGS},
}


TOLERANT = {"metrics.csv", "facts.json"}
"""Documents of which damaged parts are reported or left out instead."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ccop_hub.formats.fingerprint.fingerprint", lambda *_: FINGERPRINT)


@pytest.mark.parametrize("name", BORDERS)
def test_every_field_of_another_type_is_refused_in_one_line_or_read(name: str, tmp_path: Path) -> None:
    border = BORDERS[name]
    sound = border.sound()
    border.write(tmp_path, sound)
    border.read(tmp_path)
    failures, refused = [], 0
    for path in places(sound):
        for value in border.wrong:
            border.write(tmp_path, replaced(sound, path, value))
            try:
                border.read(tmp_path)
            except UserError as error:
                refused += 1
                told = str(error)
                if not told.isprintable() or len(told) > 1500 or (str(tmp_path) not in told and "--" not in told):
                    failures.append(f"{path} = {str(value)[:30]!r}: {told[:300]!r}")
            except Exception as error:
                failures.append(f"{path} = {str(value)[:30]!r}: {type(error).__name__}: {str(error)[:200]}")
    assert failures == []
    assert refused or name in TOLERANT
