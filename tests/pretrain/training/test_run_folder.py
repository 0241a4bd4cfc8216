import dataclasses

import pytest
import yaml
from ccop_pretrain.training.run_folder import RunFolder, RunState

from ccop_hub.errors import UserError


def test_new_then_unfinished_then_finished(tiny_run):
    settings = tiny_run()
    folder = RunFolder(settings.out)
    assert folder.prepare(settings) is RunState.NEW
    assert yaml.safe_load(folder.settings.read_text())["steps"] == 5
    assert folder.prepare(settings) is RunState.NEW
    folder.checkpoints.mkdir()
    (folder.checkpoints / "step-000000001.ckpt").touch()
    assert folder.prepare(dataclasses.replace(settings, workers=2)) is RunState.UNFINISHED
    with pytest.raises(UserError, match=r"--no-resume.*--overwrite"):
        folder.prepare(dataclasses.replace(settings, resume=False))
    folder.exported.mkdir()
    (folder.exported / "facts.json").write_text("{}")
    assert folder.prepare(settings) is RunState.FINISHED


def test_a_run_of_other_settings_is_not_touched_unless_asked(tiny_run):
    settings = tiny_run()
    folder = RunFolder(settings.out)
    folder.prepare(settings)
    folder.metrics.write_text("kept")
    folder.checkpoints.mkdir()
    (folder.checkpoints / "step-000000001.ckpt").touch()
    with pytest.raises(UserError, match=r"jitters \(2 there, 3 now\).*--overwrite"):
        folder.prepare(tiny_run(jitters=3))
    assert folder.metrics.read_text() == "kept"
    assert folder.prepare(tiny_run(jitters=3, overwrite=True)) is RunState.NEW
    assert not folder.metrics.exists()
    assert yaml.safe_load(folder.settings.read_text())["jitters"] == 3


def test_a_start_that_failed_does_not_stand_in_the_way(tiny_run):
    folder = RunFolder(tiny_run().out)
    folder.prepare(tiny_run())
    folder.metrics.write_text("step\n")
    folder.checkpoints.mkdir()
    assert folder.prepare(tiny_run(jitters=3, resume=False)) is RunState.NEW
    assert not folder.metrics.exists()
    assert yaml.safe_load(folder.settings.read_text())["jitters"] == 3


def test_a_folder_of_an_earlier_version_is_resumed(tiny_run):
    """Settings under their old names, or without newer ones, describe the same run."""
    settings = tiny_run()
    folder = RunFolder(settings.out)
    folder.prepare(settings)
    folder.checkpoints.mkdir()
    (folder.checkpoints / "step-000000001.ckpt").touch()
    old = yaml.safe_load(folder.settings.read_text())
    for today, before in (("backbone", "arch"), ("devices", "gpus"), ("num_nodes", "num_machines")):
        old[before] = old.pop(today)
    old["checkpoint_every"], old["precision"] = old.pop("save_every"), "32-true"
    del old["resume"], old["micro_batches"]
    folder.settings.write_text(yaml.safe_dump(old))
    assert folder.prepare(settings) is RunState.UNFINISHED
    folder.settings.write_text(yaml.safe_dump({**old, "arch": "resnet34", "precision": "bf16-mixed"}))
    with pytest.raises(UserError, match=r"backbone \(resnet34 there.*precision \(bf16 there, float32 now"):
        folder.prepare(settings)


def test_a_folder_of_something_else_is_left_alone(tiny_run, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not a run"):
        RunFolder(tmp_path).prepare(tiny_run(out=tmp_path, overwrite=True))
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex").prepare(tiny_run())


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"../../../x", b"x" * 100_000, b"a\nb", None])
def test_run_ids_of_loggers_that_cannot_be_ids_are_refused(tmp_path, content):
    folder = RunFolder(tmp_path)
    assert folder.mlflow_run_id() is None
    assert folder.wandb_run_id() == folder.wandb_run_id()
    folder.write_mlflow_run_id("0f" * 16)
    assert folder.mlflow_run_id() == "0f" * 16
    for path, read in ((folder.wandb, folder.wandb_run_id), (folder.mlflow, folder.mlflow_run_id)):
        path.unlink()
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{path.name} does not contain a run id: delete it"):
            read()
