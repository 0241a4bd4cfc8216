import contextlib
import csv
import dataclasses
import importlib
import json
import logging
import shutil
import sys

import pytest
import torch
import yaml
from ccop_pretrain.settings import PhotometricSettings, RunSettings, SmallDataSettings
from ccop_pretrain.training import run as program
from ccop_pretrain.training import trainer
from ccop_pretrain.training.checkpoints import newest_checkpoint
from ccop_pretrain.training.run import run
from ccop_pretrain.training.run_folder import RunFolder
from ccop_pretrain.views.dataset import ViewDataset
from ccop_pretrain.views.listing import open_listing
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from ccop_hub.errors import UserError


def final_state(settings):
    path = newest_checkpoint(RunFolder(settings.out).checkpoints)
    assert path.name == "step-000000005.ckpt"
    return torch.load(path, weights_only=True)


def assert_same_weights(first, second):
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name


@pytest.fixture
def stop_after(monkeypatch):
    """Make the next run fail after a step, like a crash."""
    build = program.build_trainer

    class Crash(Callback):
        def __init__(self, step):
            self.step = step

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx + 1 == self.step:
                raise RuntimeError("crash")

    def arrange(step):
        def building(*arguments):
            trainer = build(*arguments)
            trainer.callbacks.append(Crash(step))
            return trainer

        monkeypatch.setattr(program, "build_trainer", building)

    yield arrange
    monkeypatch.setattr(program, "build_trainer", build)


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(tiny_run, tmp_path, stop_after, monkeypatch):
    whole = tiny_run(out=tmp_path / "whole")
    assert run(whole).exit_code == 0
    broken = tiny_run(out=tmp_path / "broken")
    build = program.build_trainer
    stop_after(4)
    with pytest.raises(RuntimeError, match="crash"):
        run(broken)
    monkeypatch.setattr(program, "build_trainer", build)
    # The newest checkpoint is corrupt: the previous one is used, with a warning.
    newest = newest_checkpoint(RunFolder(broken.out).checkpoints)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    logging.getLogger("ccop_pretrain").handlers.clear()
    assert run(tiny_run(out=broken.out, workers=1)).exit_code == 0
    assert_same_weights(final_state(whole), final_state(broken))
    log = RunFolder(broken.out).log.read_text()
    assert "is damaged" in log
    assert f"resuming after step {int(newest.stem[5:]) - 2}" in log
    with RunFolder(broken.out).metrics.open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5"]


def test_a_step_of_micro_batches_is_one_step_and_goes_on_exactly(tiny_run, tmp_path, stop_after, monkeypatch):
    small = {"backbone": "test_resnet", "micro_batches": 2}
    whole = tiny_run(out=tmp_path / "whole", **small)
    assert run(whole).exit_code == 0
    broken = tiny_run(out=tmp_path / "broken", **small)
    build = program.build_trainer
    stop_after(4)
    with pytest.raises(RuntimeError, match="crash"):
        run(broken)
    monkeypatch.setattr(program, "build_trainer", build)
    assert run(dataclasses.replace(broken, workers=1)).exit_code == 0
    state = final_state(whole)
    assert_same_weights(state, final_state(broken))
    assert state["global_step"] == int(state["state_dict"]["objective.step"]) == 5
    assert state["lr_schedulers"][0]["last_epoch"] == 5
    log = RunFolder(whole.out).log.read_text()
    assert "5 steps (3 an epoch) of 4 images (2 micro-batches x 2 x 1 processes)" in log
    rows = [list(csv.DictReader(RunFolder(folder.out).metrics.open())) for folder in (whole, broken)]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
    assert float(rows[0][0]["loss"]) == pytest.approx(
        sum(float(rows[0][0][f"loss_{part}"]) for part in ("image", "box", "intra")), rel=1e-4
    )


def test_a_run_folder_explains_itself(tiny_run, capsys):
    settings = tiny_run(pictures=2)
    assert run(settings).exit_code == 0
    folder = RunFolder(settings.out)
    assert yaml.safe_load(folder.settings.read_text())["backbone"] == "resnet18"
    assert json.loads(folder.environment.read_text())["versions"]["torch"] == torch.__version__.partition("+")[0]
    log = folder.log.read_text()
    assert "learning rate 0.0046875 = 0.3 x 4 / 256" in log
    assert "step 5/5" in log
    with folder.metrics.open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["loss"]) == pytest.approx(
        sum(float(rows[0][f"loss_{part}"]) for part in ("image", "box", "intra")), rel=1e-4
    )
    assert {"lr", "images_per_second", "data_wait", "image_embedding_std", "valid_jitters"} <= rows[0].keys()
    assert folder.skipped.read_text() == "image,reason\n"
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-000000004.ckpt", "step-000000005.ckpt"]
    assert {path.name for path in folder.pictures.iterdir()} >= {"views.png", "proposals.png"}
    before = folder.metrics.read_bytes()
    capsys.readouterr()
    assert run(settings).exit_code == 0
    assert "finished" in capsys.readouterr().out
    assert folder.metrics.read_bytes() == before


def test_mocov2_needs_no_proposals_and_does_not_look_at_them(tiny_run, tmp_path):
    without = tiny_run(out=tmp_path / "without", objective="mocov2", proposals=None)
    given = tiny_run(out=tmp_path / "given", objective="mocov2")
    assert run(without).exit_code == run(given).exit_code == 0
    assert_same_weights(final_state(without), final_state(given))
    facts = json.loads((given.out / "exported" / "facts.json").read_text())
    assert facts["objective"] == "mocov2"
    assert facts["parts"] == ["backbone"]
    tensors = load_file(run(given).exported)
    assert {name.split(".")[0] for name in tensors} == {"backbone"}, "an untrained pyramid is nothing to start from"


def test_unreadable_images_are_counted_and_named(tiny_run, scenes, tmp_path):
    folder = tmp_path / "scenes"
    shutil.copytree(scenes, folder)
    (folder / "04.png").write_bytes((folder / "04.png").read_bytes()[:300])
    settings = tiny_run(images=folder, objective="mocov2", proposals=None, max_unreadable=0.1)
    assert run(settings).exit_code == 0
    assert [line.split(",")[0] for line in RunFolder(settings.out).skipped.read_text().splitlines()] == [
        "image",
        "04.png",
    ]
    assert "1 image skipped: 04.png" in RunFolder(settings.out).log.read_text()


def test_too_many_unreadable_images_stop_a_run(tiny_run, scenes, tmp_path):
    folder = tmp_path / "scenes"
    shutil.copytree(scenes, folder)
    for name in ("04.png", "09.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:300])
    settings = tiny_run(images=folder, objective="mocov2", proposals=None, max_unreadable=1 / 14)
    with pytest.raises(UserError, match=r"2 of 14 images cannot be used.*04\.png.*09\.png"):
        run(settings)
    # The limit may be raised for a run that has started.
    assert run(dataclasses.replace(settings, max_unreadable=2 / 14)).exit_code == 0


def test_wrong_input_leaves_no_run_behind(tiny_run, tmp_path):
    with pytest.raises(UserError, match="needs boxes"):
        run(tiny_run(proposals=None))
    with pytest.raises(UserError, match="--batch-size 14"):
        run(tiny_run(batch_size=64))
    with pytest.raises(UserError, match="no network named"):
        run(tiny_run(backbone="resnet19"))
    with pytest.raises(UserError, match="--batch-size 3 cannot be divided between 2 processes"):
        run(tiny_run(batch_size=3, devices=2))
    with pytest.raises(UserError, match=r"with 3 micro-batches each.*a multiple of 3, at least 6"):
        run(tiny_run(micro_batches=3))
    with pytest.raises(UserError, match="at least two images per micro-batch"):
        run(tiny_run(micro_batches=4))
    with pytest.raises(UserError, match="--jitters -1 is not allowed"):
        run(tiny_run(jitters=-1))
    with pytest.raises(UserError, match="torchrun or srun"):
        run(tiny_run(num_nodes=2))
    if not torch.backends.mps.is_available():
        with pytest.raises(UserError, match="--accelerator, --devices or --num-nodes"):
            run(tiny_run(accelerator="mps"))
    assert not (tmp_path / "run").exists()


def test_what_is_watched_is_in_every_log_and_changes_nothing(tiny_run, tmp_path, scenes):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for index, image in enumerate(sorted(scenes.glob("*.png"))):
        folder = tmp_path / "classes" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder)
    small = {"backbone": "test_resnet", "log_every": 5}
    watched = tiny_run(out=tmp_path / "watched", tensorboard=True, probe=tmp_path / "classes", probe_every=0.5, **small)
    plain = tiny_run(out=tmp_path / "plain", **small)
    assert run(watched).exit_code == run(plain).exit_code == 0
    assert_same_weights(final_state(watched), final_state(plain))
    with RunFolder(watched.out).metrics.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["knn_accuracy"]] == ["0", "2", "4", "5"]
    change, start, end = (
        float(row[name])
        for row, name in ((rows[-1], "knn_change"), (rows[0], "knn_accuracy"), (rows[-1], "knn_accuracy"))
    )
    assert change == pytest.approx(end - start, abs=1e-5)
    assert "better than at the start" in RunFolder(watched.out).log.read_text()
    events = EventAccumulator(str(RunFolder(watched.out).tensorboard)).Reload()
    for name in ("knn_accuracy", "box_queue_age", "image_embedding_std"):
        assert events.Scalars(name)[-1].value == pytest.approx(float([row for row in rows if row[name]][-1][name]))
    assert not RunFolder(plain.out).tensorboard.exists()
    assert "the image queue of 16 keys is longer than an epoch's 14" in RunFolder(plain.out).log.read_text()


def test_both_objectives_may_see_the_same_crops(tiny_run):
    def crops(settings):
        views = ViewDataset(open_listing(settings), settings, settings.seed)
        return [view.crop for index in range(len(views)) for view in _both(views.views(0, index, index, (96, 72)))]

    ccop, same, apart = tiny_run(), tiny_run(objective="mocov2", same_crops=True), tiny_run(objective="mocov2")
    assert crops(ccop) == crops(same) != crops(apart)
    assert run(dataclasses.replace(same, backbone="test_resnet")).exported.name == "backbone.safetensors"
    with pytest.raises(UserError, match="--proposals"):
        tiny_run(objective="mocov2", same_crops=True, proposals=None)


def _both(views):
    return views.query, views.key


def test_small_data_settings_train_and_resume(tiny_run):
    settings = tiny_run(
        **{"backbone": "test_resnet", "split_bn": 2, "negatives": "both", "head_init": "pytorch", "head_norm": "batch"},
        **{"zero_init_last": True, "optimizer": "adamw", "decay_norms": False, "lr": 0.001},
        **{"colour_jitter": "multiplicative", "scale_blur": True},
    )
    run(settings)
    whole, last = final_state(settings), RunFolder(settings.out).checkpoints / "step-000000005.ckpt"
    shutil.rmtree(RunFolder(settings.out).exported)
    last.unlink()
    run(settings)
    assert_same_weights(final_state(settings), whole)
    with pytest.raises(UserError, match="split_bn"):
        run(dataclasses.replace(settings, split_bn=1))


def test_settings_of_an_older_run_count_as_the_defaults(tiny_run):
    settings = tiny_run(backbone="test_resnet")
    run(settings)
    path = RunFolder(settings.out).settings
    new = {field.name for kind in (SmallDataSettings, PhotometricSettings) for field in dataclasses.fields(kind)}
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({name: value for name, value in content.items() if name not in new}))
    shutil.rmtree(RunFolder(settings.out).exported)
    (RunFolder(settings.out).checkpoints / "step-000000005.ckpt").unlink()
    assert run(settings).exit_code == 0


def test_a_resumed_run_keeps_what_the_probe_found_at_the_start(tiny_run, tmp_path, scenes):
    for index, image in enumerate(sorted(scenes.glob("*.png"))):
        folder = tmp_path / "classes" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder)
    settings = tiny_run(backbone="test_resnet", probe=tmp_path / "classes", momentum=0.5, lr=20.0)
    whole = run(settings).metrics
    last = RunFolder(settings.out).checkpoints / "step-000000005.ckpt"
    saved = torch.load(last, weights_only=True)["probe_start"]["hits"]
    # Its results come from the checkpoint; otherwise the initial weights are probed again.
    for found, expected in ((1 - saved, None), (None, whole["knn_change"])):
        shutil.rmtree(RunFolder(settings.out).exported)
        last.unlink()
        before = RunFolder(settings.out).checkpoints / "step-000000004.ckpt"
        content = torch.load(before, weights_only=True)
        if found is None:
            del content["probe_start"]
        else:
            content["probe_start"]["hits"] = found
        torch.save(content, before)
        change = run(settings).metrics["knn_change"]
        expected = whole["knn_accuracy"] - found.double().mean().item() if expected is None else expected
        assert change == pytest.approx(expected, abs=1e-5)


@contextlib.contextmanager
def fake_package(root, files, module, monkeypatch):
    """Write a package's files, import one of its modules and remove the package at the end."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.syspath_prepend(root)
    yield importlib.import_module(module)
    package = module.partition(".")[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """A fake `wandb` package that records its calls."""
    files = {
        "wandb/__init__.py": """
import sys
run, started, logged = None, [], []
class Experiment:
    def log(self, figures, **others): logged.append(figures)
def init(**given):
    started.append({**given, "argv": sys.argv})
    return Experiment()
""",
        "wandb/sdk/__init__.py": "",
        "wandb/sdk/lib/__init__.py": "class RunDisabled: pass",
        "wandb/wandb_run.py": "class Run: pass",
        "wandb-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: wandb\nVersion: 1.0\n",
    }
    with fake_package(tmp_path / "packages", files, "wandb", monkeypatch) as module:
        yield module


def test_a_continued_run_goes_on_at_wandb_too(tiny_run, wandb, stop_after, monkeypatch):
    settings = tiny_run(objective="mocov2", backbone="test_resnet", wandb="project")
    build = program.build_trainer
    words = ["ccop-pretrain", "run", "--init", "https://me:secret@weights.example/a.pth?token=secret"]
    monkeypatch.setattr(sys, "argv", words)
    stop_after(3)
    with pytest.raises(RuntimeError, match="crash"):
        run(settings)
    monkeypatch.setattr(program, "build_trainer", build)
    assert run(settings).exit_code == 0
    first, second = wandb.started
    # W&B saves the command line.
    assert first["argv"] == [*words[:3], "https://weights.example/a.pth"]
    assert sys.argv == words
    assert first["id"] == second["id"] == RunFolder(settings.out).wandb.read_text().strip()
    assert (first["project"], first["name"], first["resume"]) == ("project", "run", "allow")
    assert [figures["trainer/global_step"] for figures in wandb.logged] == [1, 2, 3, 3, 4, 5]
    # A run that starts over gets a new identity.
    assert run(dataclasses.replace(settings, overwrite=True, steps=1)).exit_code == 0
    assert wandb.started[2]["id"] != first["id"]


def test_wandb_that_is_not_installed_is_a_mistake_of_one_line(tiny_run, monkeypatch):
    monkeypatch.setattr(trainer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        run(tiny_run(wandb="project"))


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """A fake `mlflow` package whose client records its calls."""
    files = {
        "mlflow/__init__.py": "def set_tracking_uri(uri): pass",
        "mlflow/entities.py": """
class Metric:
    def __init__(self, key, value, timestamp, step): self.key, self.value, self.step = key, value, step
class Param:
    def __init__(self, key, value): pass
""",
        "mlflow/tracking/__init__.py": """
import types
made, places, steps, ended = [], [], [], []
class MlflowClient:
    def __init__(self, tracking_uri): places.append(tracking_uri)
    def get_experiment_by_name(self, name): return types.SimpleNamespace(experiment_id="7", lifecycle_stage="active")
    def create_run(self, experiment_id, tags):
        made.append(tags)
        info = types.SimpleNamespace(run_id=f"run{len(made)}")
        return types.SimpleNamespace(info=info)
    def get_run(self, run_id):
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id, experiment_id="7"))
    def log_batch(self, run_id, metrics=(), params=()): steps.extend((run_id, one.step) for one in metrics[:1])
    def set_terminated(self, run_id, status=None): ended.append((run_id, status))
""",
        "mlflow/tracking/context/__init__.py": "",
        "mlflow/tracking/context/registry.py": "def resolve_tags(tags): return tags",
        "mlflow/utils/__init__.py": "",
        "mlflow/utils/mlflow_tags.py": "MLFLOW_RUN_NAME = 'mlflow.runName'",
        "mlflow-3.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: mlflow\nVersion: 3.0\n",
    }
    with fake_package(tmp_path / "packages", files, "mlflow.tracking", monkeypatch) as module:
        yield module


def test_a_resumed_run_continues_its_mlflow_run(tiny_run, mlflow, stop_after, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@tracking.example")
    settings = tiny_run(objective="mocov2", backbone="test_resnet", mlflow="experiment")
    build = program.build_trainer
    stop_after(3)
    with pytest.raises(RuntimeError, match="crash"):
        run(settings)
    monkeypatch.setattr(program, "build_trainer", build)
    assert run(settings).exit_code == 0
    assert len(mlflow.made) == 1
    assert mlflow.made[0]["mlflow.runName"] == "run"
    assert sorted({step for _, step in mlflow.steps}) == [1, 2, 3, 4, 5]
    assert {identifier for identifier, _ in mlflow.steps} == {"run1"}
    assert set(mlflow.places) == {"https://me:secret@tracking.example"}
    written = [path for path in settings.out.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert written == []


@pytest.mark.parametrize("address", ["weird://me:secret@host/db", "https://host/?token=secret"])
def test_a_refusal_by_mlflow_is_one_line_without_secrets(tmp_path, mlflow, monkeypatch, address):
    def refuse(self, tracking_uri):
        raise RuntimeError(f"unsupported {tracking_uri}\nurl: /?{tracking_uri.partition('?')[2]}")

    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", True)
    monkeypatch.setattr(mlflow.MlflowClient, "__init__", refuse)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    settings = RunSettings(tmp_path, tmp_path, objective="mocov2", mlflow="experiment", tensorboard=False)
    with pytest.raises(UserError, match=r"--mlflow experiment: unsupported .*MLFLOW_TRACKING_URI") as raised:
        trainer.further_loggers(settings, RunFolder(tmp_path), 0, True)
    assert "secret" not in str(raised.value)


def test_mlflow_that_is_not_installed_is_one_line(tiny_run, monkeypatch):
    monkeypatch.setattr(trainer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install mlflow-skinny"):
        run(tiny_run(mlflow="experiment"))
