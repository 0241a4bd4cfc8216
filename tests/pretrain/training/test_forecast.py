import re

import pytest
import torch
from ccop_pretrain.method.encoder import Encoder
from ccop_pretrain.method.objective import ContrastivePretraining
from ccop_pretrain.training import forecast, pace
from ccop_pretrain.training.checkpoints import newest_checkpoint
from ccop_pretrain.training.forecast import cost_before_start, saved_bytes
from ccop_pretrain.training.run import run
from ccop_pretrain.training.run_folder import RunFolder

from ccop_hub import progress


def test_the_saved_activations_are_those_of_a_real_pass():
    encoder = Encoder("test_resnet", image_size=32, hidden_dim=8, embedding_dim=4)
    weights = {value.untyped_storage().data_ptr() for value in encoder.state_dict().values()}
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    pixels = torch.zeros(4, 3, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = encoder(pixels)
    real = sum(value.untyped_storage().nbytes() for place, value in kept.items() if place not in weights)
    assert saved_bytes(encoder, 4, 32) == real > 0
    assert output.pooled.requires_grad
    assert saved_bytes(encoder, 8, 32) == pytest.approx(2 * real, rel=0.05)


def test_a_run_says_what_it_needs_and_how_long_it_will_take(tiny_run, monkeypatch, capsys):
    monkeypatch.setattr(pace, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(pace, "MEASURED_STEPS", 1)
    monkeypatch.setattr(progress, "SECONDS_TO_ESTIMATE", 0.0)
    settings = tiny_run()
    assert run(settings).exit_code == 0
    err = capsys.readouterr().err
    before, after = re.findall(r"^estimate.*$", err, re.MULTILINE)
    assert err.index(before) < err.index("training: 0 of 5 steps") < err.index(after)
    assert re.search(r"at least [\d.]+ [GM]B of memory, [\d.]+ [GM]B on the disk", before)
    assert re.search(r"for the remaining 2 steps \([\d.]+ s per step\), [\d.]+ [GM]B of memory, about [\d.]+ Wh", after)
    assert re.search(r"training: 1 of 5 steps, about .* left", err)
    assert "training: 5 of 5 steps" in err


def test_the_disk_space_before_the_start_is_what_the_run_takes(tiny_run):
    settings = tiny_run(steps=2, save_every=2)
    run(settings)
    objective = ContrastivePretraining(settings, settings.backbone, 2, settings.image_size)
    cost = cost_before_start(settings, objective, 2, 14, 0.0, 0.0)
    folder = RunFolder(settings.out)
    written = newest_checkpoint(folder.checkpoints).stat().st_size
    written += sum(path.stat().st_size for path in folder.exported.glob("*.safetensors"))
    assert cost.disk == pytest.approx(written, rel=0.05)


def test_too_little_memory_or_disk_is_a_warning_before_the_start(tiny_run, monkeypatch, capsys):
    monkeypatch.setattr("ccop_pretrain.estimates.total_memory", lambda: 1000)
    monkeypatch.setattr("ccop_pretrain.estimates.free_disk", lambda folder: 1000)
    assert run(tiny_run(steps=1, backbone="test_resnet")).exit_code == 0
    err = capsys.readouterr().err
    assert "the run needs about" in err
    assert "of memory, this machine has 1 kB" in err
    assert "of disk space" in err
    assert err.index("of disk space") < err.index("step 1/1")
    assert forecast.LOG.name.startswith("ccop_pretrain.training")
