"""Speed settings change nothing by default, and change losses only by rounding."""

import dataclasses

import pytest
import torch
from ccop_pretrain.training.run import run
from ccop_pretrain.training.schedule import Schedule
from ccop_pretrain.training.step import PretrainingModule, start_from
from ccop_pretrain.views.dataset import ViewDataset, collate
from ccop_pretrain.views.listing import ImageListing
from safetensors.torch import load_file
from torch.testing import assert_close

from ccop_hub.errors import UserError

FLOAT32_TOLERANCE = 1e-4
"""Relative tolerance; only the summation order differs."""


MICRO_BATCH_TOLERANCE = 0.2
"""Relative tolerance; batch norm uses micro-batches of 14 images instead of 28."""


@pytest.fixture
def batch(scenes, scene_proposals, tiny_run):
    dataset = ViewDataset(ImageListing.open(scenes, scene_proposals), tiny_run(), 0)
    return collate([dataset[0, index] for index in range(4)])


def first_losses(settings, batch, dtype=None, training=True):
    module = PretrainingModule(settings, Schedule.of(settings, 28)).train(training)
    module._backward = lambda loss, last: loss.backward()
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        output = module.accumulate_gradients(batch, 0)
    assert all(parameter.grad is not None for parameter in module.trained_parameters())
    return output.losses, module


def test_bf16_keeps_losses_and_queues_in_float32(batch, tiny_run):
    settings = tiny_run(backbone="test_resnet")
    exact, _ = first_losses(settings, batch)
    rounded, module = first_losses(settings, batch, torch.bfloat16)
    assert {loss.dtype for loss in rounded.values()} == {torch.float32}
    assert module.objective.box_queue.keys.dtype == torch.float32
    assert any(not torch.equal(rounded[name], exact[name]) for name in exact)


def test_channels_last_differs_by_rounding(batch, tiny_run):
    settings = tiny_run(backbone="test_resnet")
    exact, _ = first_losses(dataclasses.replace(settings, channels_last=False), batch)
    losses, module = first_losses(settings, batch)
    weight = module.objective.query.network.backbone.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert_close(losses, exact, rtol=FLOAT32_TOLERANCE, atol=1e-5)


def test_compiled_encoders_differ_by_rounding(batch, tiny_run, monkeypatch):
    # Tests only the graph capture, the same for all backends: code generation takes a minute and is not ours to test.
    monkeypatch.setattr("ccop_pretrain.training.step.COMPILER", "aot_eager")
    settings = tiny_run(backbone="test_resnet")
    exact, plain = first_losses(settings, batch)
    losses, module = first_losses(dataclasses.replace(settings, compile=True), batch)
    assert module.state_dict().keys() == plain.state_dict().keys()
    assert_close(losses, exact, rtol=FLOAT32_TOLERANCE, atol=1e-5)


def test_micro_batches_differ_by_their_batch_norm(scenes, scene_proposals, tiny_run):
    settings = tiny_run(backbone="test_resnet", batch_size=28, image_size=64, dropout=0.0)
    dataset = ViewDataset(ImageListing.open(scenes, scene_proposals), settings, 0)
    batch = collate([dataset[divmod(place, 14)] for place in range(28)])
    split = dataclasses.replace(settings, micro_batches=2)
    exact, _ = first_losses(settings, batch)
    losses, _ = first_losses(split, batch)
    assert_close(losses, exact, rtol=MICRO_BATCH_TOLERANCE, atol=0)
    # With fixed statistics there is no difference, since both draw the same augmentations and jitters.
    exact, _ = first_losses(settings, batch, training=False)
    losses, _ = first_losses(split, batch, training=False)
    assert_close(losses, exact, rtol=FLOAT32_TOLERANCE, atol=1e-5)


def test_activation_checkpointing_changes_no_bit_of_a_run(tiny_run, tmp_path):
    states = []
    for name, changes in {"plain": {}, "checkpointed": {"activation_checkpointing": True}}.items():
        settings = tiny_run(out=tmp_path / name, backbone="test_resnet", steps=3, **changes)
        assert run(settings).exit_code == 0
        state = torch.load(settings.out / "checkpoints" / "step-000000003.ckpt", weights_only=True)["state_dict"]
        states.append(state | load_file(settings.out / "exported" / "backbone_fpn.safetensors"))
    plain, checkpointed = states
    assert plain.keys() == checkpointed.keys()
    assert all(torch.equal(value, checkpointed[name]) for name, value in plain.items())


def test_a_bf16_run_is_exported_in_float32_and_starts_another(tiny_run, tmp_path):
    first = tiny_run(backbone="test_resnet", precision="bf16", steps=2)
    assert run(first).exit_code == 0
    again = tiny_run(out=tmp_path / "again", backbone="test_resnet", init=str(first.out))
    module = PretrainingModule(again, Schedule.of(again, 14))
    for encoder in (module.objective.query, module.objective.key):
        saved = torch.load(first.out / "checkpoints" / "step-000000002.ckpt", weights_only=True)["state_dict"]
        for name, value in encoder.network.state_dict().items():
            assert value.dtype in (torch.float32, torch.long)
            assert torch.equal(value, saved[f"objective.query.network.{name}"]), name
    with pytest.raises(UserError, match="test_resnet"):
        start_from(module.objective, str(first.out), "resnet18")


def test_compiling_and_checkpointing_exclude_one_another(tiny_run):
    with pytest.raises(UserError, match="cannot be combined: remove one"):
        run(tiny_run(compile=True, activation_checkpointing=True))


def test_fp16_without_a_gpu_is_a_mistake(tiny_run):
    with pytest.raises(UserError, match="fp16 needs a GPU: use bf16"):
        run(tiny_run(precision="fp16"))
