"""The study runs, resumes, and reports what its result files say; the smoke scale takes seconds and shows nothing."""

import json
import shutil
from pathlib import Path

import ccop_pretrain
import pytest
import torch
from ccop_eval import settings
from ccop_eval.results.result import Result
from ccop_pretrain.training.schedule import Schedule
from ccop_pretrain.training.step import PretrainingModule

from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import read_checkpoint
from studies.scenes import checkpoint
from studies.scenes.__main__ import main
from studies.scenes.data import CAMVID, StudyData, shrink
from studies.scenes.plan import Plan
from studies.scenes.proposal_facts import write_proposal_facts
from studies.scenes.records import keep_records, without_places
from studies.scenes.report import PAGE, Campaign, Difference, write_page
from studies.scenes.runs import Study

SMOKE = Plan.read("smoke")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCOP_CACHE", str(out / "cache"))
        assert main(["--out", str(out), "--scale", "smoke"]) == 0
    return out


def test_every_arm_and_seed_has_a_result(smoke: Path) -> None:
    files = {path.name: json.loads(path.read_text()) for path in (smoke / "results" / "smoke-drawn").glob("*-seed*")}
    assert set(files) == {f"{arm}-seed0.json" for arm in ("untrained", "ccop", "mocov2")}
    for name, entry in files.items():
        regions = entry["measures"]["regions"]
        compared = {key for key in regions if key.startswith("against")}
        assert (
            compared
            == {
                "untrained": set(),
                "ccop": {"against untrained"},
                "mocov2": {"against untrained", "against ccop"},
            }[name.partition("-")[0]]
        )
        assert 0 <= regions["metrics"]["knn/mean_class"] <= 100
    start, trained = files["untrained-seed0.json"], files["ccop-seed0.json"]
    pair = trained["measures"]["knn"]["against untrained"]["k5/top1"]
    values = [entry["measures"]["knn"]["metrics"]["k5/top1"] for entry in (trained, start)]
    assert pair["difference"] == pytest.approx(values[0] - values[1])
    assert trained["training"]["late"]["loss_box"] > 0


def test_a_finished_run_is_not_repeated_and_a_lost_result_comes_back(
    smoke: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCOP_CACHE", str(smoke / "cache"))
    folder = smoke / "results" / "smoke-drawn"
    lost, kept = folder / "ccop-seed0.json", folder / "mocov2-seed0.json"
    before, written = json.loads(lost.read_text()), kept.stat().st_mtime_ns
    lost.unlink()
    assert main(["--out", str(smoke), "--scale", "smoke"]) == 0
    assert json.loads(lost.read_text())["measures"] == before["measures"]
    assert kept.stat().st_mtime_ns == written


def test_a_measure_that_the_plan_got_later_is_added_without_training(
    smoke: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCOP_CACHE", str(smoke / "cache"))
    path = smoke / "results" / "smoke-drawn" / "ccop-seed0.json"
    before = json.loads(path.read_text())
    fewer = {"measures": {"regions": before["measures"]["regions"]}, "evaluation": {"seconds": 1000.0}}
    path.write_text(json.dumps({**before, **fewer}))
    monkeypatch.setattr("studies.scenes.runs.pretrain", lambda _: pytest.fail("trained again"))
    assert main(["--out", str(smoke), "--scale", "smoke"]) == 0
    after = json.loads(path.read_text())
    assert after["measures"] == before["measures"]
    assert after["training"] == before["training"]
    assert after["evaluation"]["seconds"] >= 1000


def test_a_measure_may_be_for_one_data_set_only(tmp_path: Path) -> None:
    plan = Plan.read("small")
    names = {
        data: {measure.name for measure in Study(plan, StudyData(data, (), {}, {}), tmp_path, tmp_path, "cpu").measures}
        for data in ("packs", "drawn")
    }
    assert names["packs"] - names["drawn"] == {"segmentation_frozen", "segmentation", "linear"}
    assert names["drawn"] - names["packs"] == {"detection"}


def test_added_seeds_run_last_with_the_main_arms_alone() -> None:
    plan = Plan.read("cpu")
    count = len(plan.added) * len(plan.main)
    assert plan.runs[-count:] == [(arm, seed) for seed in plan.added for arm in plan.main]
    assert {arm for arm, seed in plan.runs if seed in plan.seeds} == set(plan.arms)
    assert len(plan.runs) == len(set(plan.runs)) == count + len(plan.seeds) * len(plan.arms)


def test_the_page_reports_added_seeds_by_themselves(smoke: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cpu-drawn"
    folder.mkdir()
    for arm in ("untrained", "ccop"):
        entry = json.loads((smoke / "results" / "smoke-drawn" / f"{arm}-seed0.json").read_text())
        entry["measures"] = {"regions": entry["measures"]["regions"]}
        for seed, gain in enumerate((3.0, -1.0, 1.0, 1.0, 1.2, 1.1)):
            if arm == "ccop":
                pair = entry["measures"]["regions"]["against untrained"]["knn/mean_class"]
                assert set(pair) == {"difference", "low", "high"}
                pair |= {"difference": gain, "low": gain - 0.5, "high": gain + 0.5}
            (folder / f"{arm}-seed{seed}.json").write_text(json.dumps({**entry, "seed": seed}))
    write_page(tmp_path, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "12 of 30 runs are finished." in text
    assert "The seeds 3, 4 and 5 were added after the results of the others had been seen." in text
    assert "CCOP - untrained: +1.05 [-0.28, +2.38] points: **no difference shown**" in text
    assert "Seeds 3, 4 and 5 alone: +1.10 [+0.85, +1.35]: better." in text
    short = text.partition("## In short")[2].partition("\n## ")[0]
    assert (
        "| synthetic images, `cpu` | regions `knn/mean_class` | +1.05 [-0.28, +2.38] | no difference shown |" in short
    )


def test_the_share_of_proposals_on_objects_is_counted(smoke: Path, tmp_path: Path) -> None:
    facts = json.loads((smoke / "results" / "smoke-drawn" / "proposals.json").read_text())
    assert facts["annotated images"] == 40
    assert 0 < facts["on an object"] < 1 - facts["on background"] < 1
    # Proposals that are the objects themselves: all are on an object, and all objects are found.
    truth = smoke / "drawn" / "annotations" / "instances_train2017.json"
    ccop_pretrain.propose(images=smoke / "drawn" / "train2017", out=tmp_path / "boxes", from_coco=truth)
    write_proposal_facts(
        smoke / "drawn" / "train2017", tmp_path / "boxes", smoke / "drawn", lambda path: path.name, tmp_path
    )
    perfect = json.loads((tmp_path / "proposals.json").read_text())
    assert (perfect["on an object"], perfect["on background"], perfect["objects found"]) == (1, 0, 1)


@pytest.mark.parametrize("arm", ["ccop", "mocov2"])
def test_every_arm_of_a_seed_starts_from_the_untrained_weights(smoke: Path, arm: str) -> None:
    study = Study(SMOKE, StudyData("drawn", (), {}, {}), smoke, smoke / "results", "cpu")
    own = study.settings(arm, 0)
    start = PretrainingModule(own, Schedule.of(own, 40)).objective.query.network.state_dict()
    saved = read_checkpoint(study.settings("untrained", 0).out).tensors
    assert saved
    for name, value in saved.items():
        assert torch.equal(start[name], value), name


def test_only_the_chosen_arms_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan.read("small")
    assert plan.chosen(None) == plan.runs
    assert plan.chosen(["ccop", "untrained"]) == [(arm, seed) for seed in (0, 1, 2) for arm in ("untrained", "ccop")]
    assert main(["--out", str(tmp_path), "--scale", "small", "--arms", "ccop", "simclr"]) == 2
    assert "simclr" in capsys.readouterr().err


@pytest.mark.parametrize("scale", ["cpu", "small", "gpu"])
def test_the_arms_differ_only_in_what_the_plan_says(scale: str, tmp_path: Path) -> None:
    study = Study(Plan.read(scale), StudyData("drawn", (), {}, {}), tmp_path, tmp_path, "cpu")
    ccop = study.settings("ccop", 0)
    for arm, changes in study.plan.arms.items():
        own = study.settings(arm, 0)
        fields = set(vars(own)) - {"out"}
        assert {name for name in fields if getattr(own, name) != getattr(ccop, name)} == set(changes)
        assert own.reads_boxes, "all arms take their crops from proposals"


def test_the_interval_over_seeds_decides() -> None:
    clear = Difference([1.0, 1.2, 1.1], [(0.5, 1.5), (0.7, 1.7), None])
    assert clear.verdict == "better"
    assert clear.interval == pytest.approx((1.1 - 4.303 * 0.1 / 3**0.5, 1.1 + 4.303 * 0.1 / 3**0.5), abs=1e-3)
    assert clear.over_images == "+1.0 [+0.5, +1.5]; +1.2 [+0.7, +1.7]; +1.1"
    assert Difference([-1.0, -1.2, -1.1], [None] * 3).verdict == "worse"
    assert Difference([3.0, -1.0, 1.0], [None] * 3).verdict == "no difference shown"
    assert Difference([3.0], [None]).interval is None
    assert Difference([1.0, 1.2, 1.1], [(-0.5, 2.5)] * 3).verdict == "better on these images"
    assert Difference([-1.0, -1.2, -1.1], [(-2.5, 0.5), None, None]).verdict == "worse on these images"


def test_shrinking_keeps_small_images_and_the_ratio(tmp_path: Path) -> None:
    from PIL import Image

    for name, size in (("a/wide.png", (200, 100)), ("small.jpg", (40, 30)), ("note.txt", None)):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path) if size else path.write_text("no image")
    assert shrink([tmp_path / "in"], tmp_path / "out", 50) == 2
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "out").rglob("*.jpg")}
    assert sizes == {"wide.jpg": (100, 50), "small.jpg": (40, 30)}


def test_a_missing_pack_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "out"), "--data", str(tmp_path), "--scale", "smoke"]) == 2
    assert "scenes" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "out"), "--scale", "huge"]) == 2
    assert "cpu" in capsys.readouterr().err


def test_the_page_is_what_the_committed_results_say(tmp_path: Path) -> None:
    write_page(page=tmp_path / "study.md")
    assert (tmp_path / "study.md").read_text() == PAGE.read_text()


def test_the_page_reports_missing_runs(smoke: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cpu-drawn"
    folder.mkdir()
    for path in (smoke / "results" / "smoke-drawn").glob("*-seed0.json"):
        entry = json.loads(path.read_text())
        entry["measures"]["knn"]["metrics"] = {"k20/top1": 1.0, "k100/top1": 2.0}
        (folder / path.name).write_text(json.dumps(entry))
    assert len(Campaign.read(folder).results) == 3
    write_page(tmp_path, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "3 of 30 runs" in text
    assert "for 2 steps of 8 images (0 epochs, 16 images seen)" in text
    assert "one seed: no conclusion" in text


@pytest.mark.parametrize("scale", ["smoke", "cpu", "small", "gpu"])
def test_the_options_of_every_measure_are_settings_of_its_task(scale: str, tmp_path: Path) -> None:
    classes = {
        "regions": settings.RegionSettings,
        "knn": settings.KnnSettings,
        "linear": settings.LinearSettings,
        "segment": settings.SegmentationSettings,
        "detect": settings.DetectionSettings,
    }
    for measure in Plan.read(scale).measures:
        for given in ({}, CAMVID if measure.data == "labels" else {}):
            classes[measure.task](weights="w", data=tmp_path, out=tmp_path, **measure.options, **given)


def test_a_network_is_written_for_the_hub_only_if_it_is_better_than_its_start(smoke: Path, tmp_path: Path) -> None:
    results = tmp_path / "small-drawn"
    shutil.copytree(smoke / "results" / "smoke-drawn", results)
    path = results / "ccop-seed0.json"
    entry = json.loads(path.read_text())
    for measure, metrics in (("regions", ("knn/mean_class", "linear/mean_class")), ("knn", ("k20/top1", "k100/top1"))):
        pairs = {name: {"difference": 2.0, "low": 1.25, "high": 2.75} for name in metrics}
        entry["measures"][measure] |= {"against untrained": pairs, "metrics": dict.fromkeys(metrics, 12.5)}
    path.write_text(json.dumps(entry))
    start = results / "untrained-seed0.json"
    before = json.loads(start.read_text())
    before["measures"]["knn"]["metrics"] = {"k20/top1": 10.5, "k100/top1": 10.5}
    start.write_text(json.dumps(before))

    run = smoke / "runs" / "ccop-seed0"
    file = checkpoint.write(run, results, tmp_path / "net.ccop")
    exported, shipped = read_checkpoint(run).tensors, read_checkpoint(file)
    assert set(shipped.tensors) == {name for name in exported if name.startswith("backbone.")}
    for name, value in shipped.tensors.items():
        assert torch.equal(value, exported[name].half() if exported[name].is_floating_point() else exported[name])
    assert shipped.facts["dataset"]["name"] == "40 synthetic scenes"
    text = (tmp_path / "net.ccop" / "README.md").read_text()
    assert "# net.ccop\n" in text
    assert "| kNN on crops, k = 20, top 1 | 10.50 | 12.50 | +2.00 [+1.25, +2.75] | +2.00 |" in text
    assert str(tmp_path) not in text + (tmp_path / "net.ccop" / "settings.yaml").read_text()

    entry["measures"]["knn"]["against untrained"]["k20/top1"]["low"] = -0.5
    path.write_text(json.dumps(entry))
    with pytest.raises(UserError, match="not shown to be better than its start in knn k20/top1"):
        checkpoint.write(run, results, tmp_path / "other")
    with pytest.raises(UserError, match="no result of mocov2-seed0"):
        checkpoint.write(smoke / "runs" / "mocov2-seed0", results, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_records_are_whole_results_without_the_places_of_a_machine(smoke: Path, tmp_path: Path) -> None:
    written = keep_records(smoke, "smoke-drawn", tmp_path)
    record = tmp_path / "smoke-drawn" / "ccop-seed0" / "regions-untrained" / "result.json"
    assert record in written
    found = Result.read(record)
    assert found.weights.name == "ccop-seed0"
    assert found.against is not None
    assert found.against.weights.name == "untrained-seed0"
    assert found.metrics == Result.read(smoke / "evaluations" / "ccop-seed0" / "regions-untrained").metrics
    assert str(smoke) not in "".join(path.read_text() for path in written)
    assert without_places({"data": ["/a/photos", "b/c"]}, smoke) == {"data": ["photos", "b/c"]}
    with pytest.raises(UserError, match=r"contains no result\.json"):
        keep_records(tmp_path / "none", "smoke-drawn", tmp_path)
