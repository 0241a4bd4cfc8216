import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from ccop_pretrain.training.checkpoints import WholeFiles
from ccop_pretrain.training.run import run
from ccop_pretrain.training.run_folder import RunFolder

from ccop_hub.errors import UserError
from ccop_hub.saved_settings import plain


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def unfinished(tiny_run):
    """A run without its last file, the export."""
    settings = tiny_run(backbone="test_resnet", steps=4)
    assert run(settings).exit_code == 0
    folder = RunFolder(settings.out)
    (folder.exported / "facts.json").unlink()
    return settings, folder


def test_a_checkpoint_that_would_run_code_is_refused(unfinished, tmp_path):
    settings, folder = unfinished
    path = folder.checkpoints / "step-000000004.ckpt"
    contents = torch.load(path, weights_only=True)
    torch.save({**contents, "callbacks": {"planted": Malicious(tmp_path / "planted")}}, path)
    with pytest.raises(UserError, match=r"step-000000004\.ckpt contains more than tensors .*mkdir") as caught:
        run(settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "planted").exists()
    path.unlink()
    assert run(settings).exit_code == 0


def test_a_checkpoint_of_another_form_is_refused(unfinished):
    settings, folder = unfinished
    path = folder.checkpoints / "step-000000004.ckpt"
    sound = torch.load(path, weights_only=True)
    for change, told in (
        ({"state_dict": {"a": 1}}, "is not a checkpoint of this run"),
        ({"optimizer_states": [1]}, "is not a checkpoint of this run"),
        ({"lr_schedulers": None}, "is not a checkpoint of this run"),
        ({"loops": {"a": 1}}, "is not a checkpoint of this run"),
        ({"loops": None}, "does not say how far the run got"),
        ({"state_dict": {"a": torch.tensor([float("nan")])}}, "a in .* is not finite"),
    ):
        torch.save({**sound, **change}, path)
        with pytest.raises(UserError, match=rf"{told}.*delete it to resume from the checkpoint before"):
            run(settings)


def test_reading_a_checkpoint_restores_what_was_written(tmp_path):
    contents = {"step": 3, "state_dict": {"a": torch.arange(3.0)}, "skipped": {1: "too short"}, "loops": {}}
    WholeFiles().save_checkpoint(contents, tmp_path / "step-000000003.ckpt")
    again = WholeFiles().load_checkpoint(tmp_path / "step-000000003.ckpt")
    assert (again["step"], again["skipped"]) == (3, {1: "too short"})
    assert torch.equal(again["state_dict"]["a"], torch.arange(3.0))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_saves_and_stops(tiny_run, tmp_path, number, code):
    settings = tiny_run(backbone="test_resnet", steps=100_000, workers=2, save_every=100_000, batch_size=4)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain(settings)))
    program = "import sys; from ccop_pretrain.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "run", "--config", tmp_path / "run.yaml"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = RunFolder(settings.out)
    while process.poll() is None and not (folder.log.is_file() and "step 3/" in folder.log.read_text()):
        time.sleep(0.1)
    assert process.poll() is None, process.stderr.read()
    # `timeout` signals its command first, then the whole group.
    os.kill(process.pid, number)
    os.killpg(process.pid, number)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == code, said
    (saved,) = folder.checkpoints.iterdir()
    steps = int(saved.stem.removeprefix("step-"))
    assert steps >= 3
    assert f"stopped after step {steps}" in said
    assert "Traceback" not in said


def test_a_run_resumes_on_its_own_images_alone(unfinished, scenes):
    settings, folder = unfinished
    recorded = folder.images.read_text()
    folder.write_images(13, "sha256:0")
    with pytest.raises(UserError, match="began with 13 images and would resume with 14"):
        run(settings)
    folder.write_images(14, "sha256:0")
    with pytest.raises(UserError, match="some of them have other names"):
        run(settings)
    # Folders of earlier versions contain no record.
    folder.images.unlink()
    assert run(settings).exit_code == 0
    assert folder.images.read_text() == recorded


def test_a_run_among_its_images_does_not_train_on_its_own_pictures(tiny_run, scenes, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in scenes.iterdir():
        (images / path.name).symlink_to(path)
    settings = tiny_run(
        images=images, out=images / "run", objective="mocov2", proposals=None, backbone="test_resnet", pictures=2
    )
    assert run(dataclasses.replace(settings, steps=2)).exit_code == 0
    assert list((images / "run" / "pictures").glob("*.png"))
    again = run(dataclasses.replace(settings, steps=2, overwrite=True))
    assert again.exit_code == 0
    assert '"images": 14' in RunFolder(settings.out).images.read_text()


def test_a_run_returns_what_came_of_it(tiny_run):
    settings = tiny_run(backbone="test_resnet", steps=3)
    result = run(settings)
    assert (result.out, result.steps, result.exit_code, result.stopped_by) == (settings.out, 3, 0, None)
    assert result.exported.is_file()
    assert result.metrics["step"] == 3
    assert result.metrics["loss"] == pytest.approx(
        sum(result.metrics[f"loss_{name}"] for name in ("image", "box", "intra")), rel=1e-4
    )
    assert run(settings) == result
