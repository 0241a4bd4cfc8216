import pytest
import torch
from ccop_pretrain.method.batch import ViewBatch
from ccop_pretrain.training.schedule import Schedule
from ccop_pretrain.training.step import PretrainingModule, Throughput
from ccop_pretrain.views.dataset import ViewDataset, collate
from ccop_pretrain.views.listing import ImageListing


@pytest.fixture
def batch(scenes, scene_proposals, tiny_run):
    dataset = ViewDataset(ImageListing.open(scenes, scene_proposals), tiny_run(), 0)
    return collate([dataset[0, index] for index in range(4)])


def module_of(settings):
    """A module without a trainer, which would run the backward pass."""
    module = PretrainingModule(settings, Schedule.of(settings, 14))
    module._backward = lambda loss, last: loss.backward()
    return module


def test_a_step_draws_from_seed_and_step_alone(batch, tiny_run):
    losses = {}
    for case, (seed, step, noise) in {"a": (0, 3, 1), "b": (0, 3, 2), "step": (0, 4, 1)}.items():
        module = module_of(tiny_run(seed=seed))
        torch.manual_seed(noise)
        losses[case] = module.accumulate_gradients(batch, step).loss.item()
    assert losses["a"] == losses["b"] != losses["step"]


def test_initial_weights_depend_on_the_seed_alone(tiny_run):
    torch.manual_seed(1)
    first = module_of(tiny_run()).objective.query.state_dict()
    torch.manual_seed(2)
    again, other = (module_of(tiny_run(seed=seed)).objective.query.state_dict() for seed in (0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["network.backbone.conv1.weight"], other["network.backbone.conv1.weight"])


def test_the_optimiser_holds_the_query_encoder_with_decay_on_every_parameter(tiny_run):
    module = module_of(tiny_run(sgd_momentum=0.8, weight_decay=0.01))
    configured = module.configure_optimizers()
    (group,) = configured["optimizer"].param_groups
    query = list(module.objective.query.parameters())
    assert len(group["params"]) == len(query)
    assert {id(parameter) for parameter in group["params"]} == {id(parameter) for parameter in query}
    assert (group["weight_decay"], group["momentum"]) == (0.01, 0.8)
    assert group["initial_lr"] == pytest.approx(0.3 * 4 / 256)
    assert group["lr"] == pytest.approx(0.3 * 4 / 256 * 1e-4)


def test_adamw_and_a_decay_that_spares_norms_and_biases(tiny_run):
    module = module_of(tiny_run(optimizer="adamw", weight_decay=0.01, decay_norms=False, lr=0.64))
    optimiser = module.configure_optimizers()["optimizer"]
    assert type(optimiser) is torch.optim.AdamW
    decayed, spared = optimiser.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0.0)
    assert decayed["initial_lr"] == spared["initial_lr"] == pytest.approx(0.01)
    names = {id(parameter): name for name, parameter in module.objective.query.named_parameters()}
    held = [{names[id(parameter)] for parameter in group["params"]} for group in (decayed, spared)]
    assert held[0] | held[1] == set(names.values())
    assert {"network.backbone.conv1.weight", "image_head.hidden.weight"} <= held[0]
    assert {"network.backbone.bn1.weight", "image_head.hidden.bias", "network.fpn.inner_blocks.0.1.bias"} <= held[1]
    assert not held[0] & held[1]


def test_every_trained_parameter_gets_a_gradient(batch, tiny_run):
    for objective in ("ccop", "mocov2"):
        module = module_of(tiny_run(objective=objective))
        module.accumulate_gradients(batch, 0)
        trained = list(module.trained_parameters())
        assert all(parameter.grad is not None for parameter in trained)
        fpn = [parameter for parameter in module.objective.query.network.fpn.parameters() if parameter.requires_grad]
        assert bool(fpn) == (objective == "ccop")


def test_query_and_key_are_augmented_apart(batch, tiny_run):
    module = module_of(tiny_run())
    seen = []

    module.objective.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    same = ViewBatch(batch.query_images, batch.query_images, batch.query_boxes, batch.query_boxes)
    module.accumulate_gradients(same, 0)
    assert seen[0].query_images.dtype == torch.float32
    assert not torch.equal(seen[0].query_images, seen[0].key_images)


def test_the_last_part_alone_exchanges_gradients(batch, tiny_run):
    module, told = module_of(tiny_run(micro_batches=2)), []
    module._backward = lambda loss, last: told.append(last)
    module.accumulate_gradients(batch, 0)
    assert told == [False, True]


def test_throughput_counts_images_and_waiting(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 5.0, 10.0, 10.0])
    monkeypatch.setattr("ccop_pretrain.training.step.time.perf_counter", lambda: next(clock))
    throughput = Throughput()  # 0
    throughput.batch_arrived()  # 1
    throughput.step_ended(8)  # 4
    throughput.batch_arrived()  # 5
    throughput.step_ended(8)  # 10
    assert throughput.since_last_report() == (1.6, 0.2)
