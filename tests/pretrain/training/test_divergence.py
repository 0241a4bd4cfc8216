import dataclasses
import json

import pytest
import torch
from ccop_pretrain.cli import main
from ccop_pretrain.training.checkpoints import newest_checkpoint
from ccop_pretrain.training.divergence import MOST_SKIPPED, DivergedError, SkippedSteps, likely_cause
from ccop_pretrain.training.export import export
from ccop_pretrain.training.run import run
from ccop_pretrain.training.run_folder import RunFolder
from ccop_pretrain.training.schedule import Schedule
from ccop_pretrain.training.step import PretrainingModule
from ccop_pretrain.views.listing import ImageListing

from ccop_hub.errors import UserError

SMALL = {
    "backbone": "test_resnet",
    "image-size": 32,
    "batch-size": 4,
    "steps": 12,
    "warmup-epochs": 0,
    "hidden-dim": 16,
    "embedding-dim": 8,
    "jitters": 2,
    "image-queue": 16,
    "box-queue": 32,
    "workers": 0,
    "save-every": 1,
    "pictures": 0,
    "accelerator": "cpu",
    "tensorboard": "false",
}


@pytest.fixture
def command(scenes, scene_proposals, tmp_path):
    places = {"images": scenes, "proposals": scene_proposals, "out": tmp_path / "run"}
    return ["run", *(word for name, value in {**places, **SMALL}.items() for word in (f"--{name}", str(value)))]


def test_a_run_that_diverges_stops_with_one_line_and_its_last_finite_checkpoint(command, tmp_path, scenes, capfd):
    assert main([*command, "--lr", "1e12"]) != 0
    said = [line for line in capfd.readouterr().err.splitlines() if "not finite" in line]
    assert len(said) == 1
    assert "--lr 1e+12 is the likely cause" in said[0]
    folder = RunFolder(tmp_path / "run")
    assert not folder.exported.exists()
    record = json.loads(folder.diverged.read_text())
    assert record["step"] < 12
    assert len(record["images"]) == 4
    assert set(record["images"]) <= {path.name for path in scenes.iterdir()}
    kept = newest_checkpoint(folder.checkpoints)
    if kept is None:
        assert "no checkpoint" in said[0]
    else:
        state = torch.load(kept, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in state.values())
        assert int(state["objective.step"]) < record["step"]
    assert main([*command, "--lr", "0.1", "--overwrite", "true"]) == 0
    assert not folder.diverged.exists()


def test_a_loss_that_is_not_finite_stops_the_run_before_its_update(tiny_run, monkeypatch):
    forward = PretrainingModule.accumulate_gradients

    def poisoned(self, batch, step):
        output = forward(self, batch, step)
        if step == 3:
            output.losses["box"] = torch.tensor(torch.inf)
        return output

    monkeypatch.setattr(PretrainingModule, "accumulate_gradients", poisoned)
    settings = tiny_run(backbone="test_resnet", temperature_box=0.001)
    with pytest.raises(UserError, match=r"box inf.*at step 4: --temperature-box 0\.001 .*raise it") as caught:
        run(settings)
    assert "step 2 is kept" in str(caught.value)
    monkeypatch.undo()
    assert run(settings).exit_code == 0


def test_weights_that_are_not_finite_are_neither_saved_nor_exported(tiny_run, monkeypatch, tmp_path):
    update = PretrainingModule._update

    def poisoned(self, optimiser, step, batch):
        update(self, optimiser, step, batch)
        if step == 5:
            with torch.no_grad():
                self.objective.query.network.backbone.bn1.weight[0] = torch.nan

    monkeypatch.setattr(PretrainingModule, "_update", poisoned)
    settings = tiny_run(backbone="test_resnet")
    with pytest.raises(UserError, match=r"bn1\.weight is not finite at step 5"):
        run(settings)
    assert newest_checkpoint(RunFolder(settings.out).checkpoints).name == "step-000000004.ckpt"


def test_export_refuses_what_is_not_finite_in_float32(tiny_run, tmp_path):
    settings = tiny_run(backbone="test_resnet")
    schedule = Schedule.of(settings, 14)
    objective = PretrainingModule(settings, schedule).objective.double()
    with torch.no_grad():
        objective.query.network.backbone.bn1.weight[0] = 1e300
    listing = ImageListing.open(settings.images, settings.proposals)
    with pytest.raises(UserError, match=r"backbone\.bn1\.weight"):
        export(tmp_path / "exported", objective, settings, schedule, listing)
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"lr": 30.0}, "--lr 30"),
        ({"temperature_image": 0.001}, "--temperature-image"),
        ({"weight_intra": 50.0}, "--weight-intra"),
        ({"lr": 30.0, "precision": "bf16"}, "--lr 30"),
        ({"precision": "bf16"}, "--precision bf16"),
        ({}, "--lr 0.3"),
        ({"weight_decay": 1e30}, "--weight-decay 1e+30"),
        ({"weight_decay": 1e30, "lr": 30.0}, "--weight-decay 1e+30"),
        ({"weight_decay": 0.0}, "--lr 0.3"),
        ({"optimizer": "adamw"}, "--lr 0.3 is the likely cause (0.001 is usual)"),
        ({"optimizer": "adamw", "lr": 0.001, "weight_decay": 0.05}, "--lr 0.001"),
        ({"optimizer": "adamw", "lr": 0.001, "weight_decay": 50.0}, "--weight-decay 50"),
    ],
)
def test_the_most_extreme_setting_is_named(tiny_run, changed, named):
    assert named in likely_cause(dataclasses.replace(tiny_run(), **changed))


def test_loss_scaling_may_skip_a_limited_number_of_steps():
    skipped = SkippedSteps()
    for step in range(MOST_SKIPPED):
        skipped.look(step, True, [])
    skipped.look(MOST_SKIPPED, False, [])
    for step in range(MOST_SKIPPED):
        skipped.look(step, True, [])
    with pytest.raises(DivergedError, match="overflowed in 17 steps"):
        skipped.look(99, True, [])
