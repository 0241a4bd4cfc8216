import dataclasses
import json
from pathlib import Path

import pytest
from ccop_pretrain.cli import main
from ccop_pretrain.estimates import Rates
from ccop_pretrain.planning import feature_rates, run, search_rates, step_rates
from ccop_pretrain.planning.sample import DRAWN, write_sample
from ccop_pretrain.settings import PlanSettings
from ccop_pretrain.training import pace

from ccop_hub.errors import UserError

RATES = {
    "cores": 4,
    "gpu": False,
    "search_seconds": 0.1,
    "search_memory": 200_000_000,
    "search_disk": 700.0,
    "boxes": 50.0,
    "start_seconds": 5.0,
    "step_seconds": 2.0,
    "run_memory": 3_000_000_000,
    "device_memory": 0,
    "checkpoint_disk": 400_000_000,
    "export_disk": 100_000_000,
    "feature_seconds": 0.01,
    "feature_memory": 800_000_000,
    "feature_dim": 512,
}


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(RATES))
    return path


def test_given_rates_are_multiplied_out(rates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--images=25600", "--epochs=10", f"--rates={rates}", "--eval-images=1000", "--json"]
    assert main(["plan", *flags]) == 0
    document = json.loads(capsys.readouterr().out)
    costs = document["costs"]
    assert document["steps"] == 1000
    assert costs["proposals"] == {
        "seconds": pytest.approx(25600 * 0.1 / 4),
        "memory": 5 * 200_000_000,
        "device_memory": 0,
        "disk": 25600 * 700,
        "kwh": pytest.approx(640 * 48 / 3.6e6),
    }
    assert costs["pre-training"]["seconds"] == pytest.approx(5 + 1000 * 2)
    assert costs["pre-training"]["memory"] == 3_000_000_000 + 25600 * (80 + 50 * 16)
    assert costs["pre-training"]["disk"] == 2 * 400_000_000 + 100_000_000  # after 500 and 1000 steps
    assert costs["evaluation"]["seconds"] == pytest.approx(10 + 1000 * 12 * 0.01)
    assert costs["evaluation"]["disk"] == 1000 * 512 * 4
    assert costs["total"]["seconds"] == pytest.approx(sum(costs[name]["seconds"] for name in list(costs)[:3]))
    assert costs["total"]["memory"] == costs["pre-training"]["memory"]


def test_its_own_output_may_be_given_back(rates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--images=1000", f"--rates={rates}", "--json"]) == 0
    (tmp_path / "plan.json").write_text(first := capsys.readouterr().out)
    assert main(["plan", "--images=1000", f"--rates={tmp_path / 'plan.json'}", "--json"]) == 0
    assert capsys.readouterr().out == first


def test_no_proposals_for_moco_and_no_evaluation_of_nothing(rates: Path) -> None:
    settings = PlanSettings(images=1000, rates=rates, objective="mocov2", eval_images=0)
    plan = run.run(settings)
    assert list(plan.costs) == ["pre-training"]
    assert plan.costs["pre-training"].memory == 3_000_000_000 + 1000 * 80


def test_the_table_and_the_warnings(rates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates.write_text(json.dumps(RATES | {"run_memory": 10**15, "checkpoint_disk": 10**15}))
    assert main(["plan", "--images=1000", f"--rates={rates}"]) == 0
    out = capsys.readouterr().out
    for part in ("proposals", "pre-training", "evaluation", "total"):
        assert part in out
    assert "warning: pre-training needs about 1e+03 TB of memory" in out
    assert "of disk space" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no JSON", "cannot read rates"),
        ("[1]", "cannot read rates"),
        ('{"cores": 4}', "lacks boxes, checkpoint_disk"),
        (json.dumps(RATES | {"speed": 1}), "unknown fields (speed)"),
        (json.dumps(RATES | {"step_seconds": 0}), "step_seconds 0"),
        (json.dumps(RATES | {"step_seconds": "fast"}), "step_seconds fast"),
    ],
)
def test_wrong_rates_are_one_line(rates: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    rates.write_text(text)
    assert main(["plan", "--images=1000", f"--rates={rates}"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert str(rates) in err
    assert err.count("\n") == 1


def test_fewer_images_than_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--images=100"]) == 2
    assert "--batch-size" in capsys.readouterr().err


def test_measured_rates(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is measured as in a real plan, but for an instant, and in this process."""
    for module in (run, search_rates):
        monkeypatch.setattr(module, "in_own_process", lambda function, argument: function(argument))
    monkeypatch.setattr(pace, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(pace, "MEASURED_STEPS", 1)
    for module in (search_rates, feature_rates):
        monkeypatch.setattr(module, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(feature_rates, "BATCH", 4)
    monkeypatch.setattr(feature_rates, "DEFAULT_WORKERS", 0)
    settings = PlanSettings(
        images=1000,
        sample=scenes,
        backbone="test_resnet",
        image_size=32,
        eval_size=32,
        batch_size=4,
        hidden_dim=8,
        embedding_dim=4,
        image_queue=8,
        box_queue=8,
        accelerator="cpu",
        workers=1,
    )
    rates = run.measured_rates(settings)
    assert 0 < rates.search_seconds < 60
    assert 0 < rates.step_seconds < 60
    assert 0 < rates.feature_seconds < 60
    assert rates.gpu is False
    assert 1 < rates.boxes <= 50
    assert rates.search_base > 2**20
    # test_resnet has as many features as its last stage has channels.
    assert rates.feature_dim == 96
    assert rates.checkpoint_disk > 2 * rates.export_disk > 0
    plan = run.run(dataclasses.replace(settings, rates=_written(rates, tmp_path)))
    assert plan.rates == rates
    assert "pre-training" in plan._repr_html_()


def test_a_step_that_does_not_fit_is_not_tried(
    scenes: Path, scene_proposals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccop_pretrain.estimates.total_memory", lambda: 8 << 30)
    small = {"backbone": "test_resnet", "image_size": 32, "accelerator": "cpu", "image_queue": 8, "box_queue": 8}
    settings = PlanSettings(images=10**6, batch_size=2**20, **small)
    job = step_rates.planned_run(settings, scenes, scene_proposals, tmp_path / "run")
    with pytest.raises(UserError, match=r"of memory, this machine has 8.59 GB.*--batch-size.*--rates"):
        step_rates.measure_steps(step_rates.StepJob(job, settings.images, 0.0))


def _written(rates: Rates, folder: Path) -> Path:
    path = folder / "rates.json"
    path.write_text(json.dumps(dataclasses.asdict(rates)))
    return path


def test_a_sample_is_spread_over_the_images(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccop_pretrain.planning.sample.SAMPLED", 3)
    source = write_sample(PlanSettings(images=1000, sample=scenes), tmp_path / "some")
    assert list(source.keys) == ["000000000.png", "000000006.png", "000000013.png"]
    assert source[1].read_bytes() == (scenes / "06.png").read_bytes()
    drawn = write_sample(PlanSettings(images=1000, sample_side=96), tmp_path / "drawn")
    assert len(drawn) == DRAWN
    assert max(drawn[0].read().size) == 96


def test_a_sample_without_a_readable_image(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="give another --sample"):
        write_sample(PlanSettings(images=1000, sample=tmp_path / "images"), tmp_path / "out")
