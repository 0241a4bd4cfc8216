import copy
import dataclasses
from typing import Any

import pytest
import torch
from ccop_pretrain.method import encoder as encoder_module
from ccop_pretrain.method import losses, objective, plan
from ccop_pretrain.method.batch import ViewBatch
from ccop_pretrain.method.jitter import key_candidates
from ccop_pretrain.method.objective import ContrastivePretraining, StepOutput
from ccop_pretrain.settings import ObjectiveSettings
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.testing import assert_close

from ccop_hub.errors import UserError

SIZE = 64
COUNTS = (3, 0, 2, 1)


def settings(**changes: Any) -> ObjectiveSettings:
    small = ObjectiveSettings(image_queue=10, box_queue=16, hidden_dim=16, embedding_dim=8, jitters=4)
    return dataclasses.replace(small, **changes)


def build(total_steps: int = 10, **changes: Any) -> ContrastivePretraining:
    torch.manual_seed(0)
    return ContrastivePretraining(settings(**changes), "resnet18", total_steps, SIZE)


def random_batch(counts: tuple[int, ...] = COUNTS, seed: int = 1) -> ViewBatch:
    generator = torch.Generator().manual_seed(seed)

    def boxes(count: int) -> Tensor:
        """Boxes next to each other, so that they are different objects."""
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([3, 40])
        corner[:, 0] += 20 * torch.arange(count)
        return torch.cat([corner, corner + 13 + torch.rand(count, 2, generator=generator) * 7], 1)

    images = torch.randn(2, len(counts), 3, SIZE, SIZE, generator=generator)
    return ViewBatch(images[0], images[1], [boxes(count) for count in counts], [boxes(count) for count in counts])


def step(model: ContrastivePretraining, batch: ViewBatch, seed: int = 7, parts: int = 1) -> StepOutput:
    """A step with gradient accumulation, as in the training loop."""
    torch.manual_seed(seed)
    model.zero_grad()
    model.begin_step()
    totals = model.totals(batch)
    outputs = []
    for part in batch.split(parts):
        outputs.append(model(part, totals))
        outputs[-1].loss.backward()
    return model.end_step(outputs, totals)


def gradients(model: ContrastivePretraining) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in model.query.named_parameters() if parameter.requires_grad}


class TestStep:
    def test_the_loss_is_the_weighted_sum(self) -> None:
        once = step(build(), random_batch())
        assert list(once.losses) == ["image", "box", "intra"]
        assert once.loss.item() == pytest.approx(sum(value.item() for value in once.losses.values()), rel=1e-6)
        weighted = step(build(weight_image=0.5, weight_box=2.0, weight_intra=3.0), random_batch())
        assert_close(weighted.losses, once.losses)
        assert once.losses["intra"] > 0
        expected = 0.5 * once.losses["image"] + 2 * once.losses["box"] + 3 * once.losses["intra"]
        assert weighted.loss.item() == pytest.approx(expected.item(), rel=1e-6)

    def test_every_parameter_of_the_query_learns_and_none_of_the_key(self) -> None:
        model = build()
        step(model, random_batch())
        assert all(grad is not None for grad in gradients(model).values())
        assert gradients(model)["image_head.output.weight"].abs().sum() > 0
        assert gradients(model)["box_head.output.weight"].abs().sum() > 0
        assert gradients(model)["network.backbone.conv1.weight"].abs().sum() > 0
        assert not any(parameter.requires_grad for parameter in model.key.parameters())

    def test_a_seed_decides_a_step(self) -> None:
        first, second, other = build(), build(), build()
        losses = [
            step(model, random_batch(), seed).loss.item() for model, seed in ((first, 3), (second, 3), (other, 4))
        ]
        assert losses[0] == losses[1] != losses[2]
        assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)

    def test_image_keys_are_queued_in_batches_of_any_size(self) -> None:
        model = build()
        for pointer in (4, 8, 2):
            step(model, random_batch())
            assert int(model.image_queue.pointer) == pointer

    def test_hard_keys_are_queued(self) -> None:
        model = build()
        before = model.box_queue.keys.clone()
        step(model, random_batch())
        assert int(model.box_queue.pointer) == sum(COUNTS)
        changed = (model.box_queue.keys != before).any(1)
        assert changed.tolist() == [True] * sum(COUNTS) + [False] * (16 - sum(COUNTS))
        assert_close(model.box_queue.keys.norm(dim=1), torch.ones(16))

    @pytest.mark.parametrize(("end", "pointer"), [("drop", 0), ("wrap", 2)])
    def test_the_end_of_the_box_queue(self, end: str, pointer: int) -> None:
        model = build(queue_end=end)
        for _ in range(3):
            step(model, random_batch())
        assert int(model.box_queue.pointer) == pointer

    def test_counts_of_the_two_views_must_agree(self) -> None:
        batch = random_batch()
        batch.key_boxes[0] = batch.key_boxes[0][:1]
        with pytest.raises(ValueError, match="differ in number"):
            build()(batch)


class TestParts:
    """In two parts, COUNTS has 3 and 3 boxes, 3 and 1 pairs; in four parts, one has no boxes."""

    @pytest.mark.parametrize("parts", [2, 4])
    def test_parts_add_up_to_the_batch_where_batch_norm_is_fixed(self, parts: int) -> None:
        whole, split = (build(dropout=0.0).eval() for _ in range(2))
        for first_batch_seed in (1, 2):
            batch = random_batch(seed=first_batch_seed)
            expected = step(whole, batch)
            output = step(split, batch, parts=parts)
            assert not output.loss.requires_grad
            assert_close(output.loss, expected.loss.detach(), rtol=1e-5, atol=1e-6)
            assert_close(output.losses, expected.losses, rtol=1e-5, atol=1e-6)
            assert list(output.monitors) == list(expected.monitors)
            assert_close(output.monitors, expected.monitors, rtol=1e-4, atol=1e-6)
            for name, gradient in gradients(whole).items():
                # An entry near 0 may be the difference of large ones, so the tolerance is relative to the largest.
                largest = gradient.abs().max().item()
                assert_close(gradients(split)[name], gradient, rtol=1e-3, atol=1e-5 + 1e-4 * largest, msg=name)
            # Queues, pointers, ages, key encoder and step counter.
            assert_close(split.state_dict(), whole.state_dict(), rtol=1e-4, atol=1e-5)

    def test_every_part_sees_the_queues_as_they_were(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = build()
        before = {"image": model.image_queue.keys.clone(), "box": model.box_queue.keys.clone()}
        seen: list[Tensor] = []

        def spy(queries: Tensor, positives: Tensor, negatives: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
            seen.append(negatives.clone())
            return losses.info_nce(queries, positives, negatives, *others)

        monkeypatch.setattr(objective, "info_nce", spy)
        step(model, random_batch(), parts=4)
        for kind, negatives in zip(("image", "box"), (seen[::2], seen[1::2]), strict=True):
            assert len(negatives) == 4
            assert all(torch.equal(each, before[kind]) for each in negatives)
        assert int(model.box_queue.calls) == int(model.image_queue.calls) == int(model.step) == 1

    def test_the_denominators_are_those_of_the_whole_batch(self) -> None:
        model, batch = build(), random_batch()
        totals = model.totals(batch)
        assert (totals.images, totals.boxes, totals.pairs) == (4, 6, 8)
        assert build(weight_intra=0.0).totals(batch).pairs == 0

    def test_a_batch_by_itself_counts_itself(self) -> None:
        model, batch = build(dropout=0.0), random_batch()
        torch.manual_seed(7)
        alone = model(batch)
        torch.manual_seed(7)
        assert_close(model(batch, model.totals(batch)).losses, alone.losses, rtol=0, atol=0)

    def test_a_batch_that_does_not_divide_is_refused(self) -> None:
        with pytest.raises(ValueError, match="4 images cannot be split into 3"):
            random_batch().split(3)


class TestKeyEncoder:
    def test_all_parameters_are_averaged_before_the_key_forward_and_buffers_are_not(self) -> None:
        model = build(momentum=0.75)
        start = {name: value.clone() for name, value in model.key.named_parameters()}
        with torch.no_grad():
            for parameter in model.query.parameters():
                parameter.add_(torch.randn_like(parameter))
        query = {name: value.clone() for name, value in model.query.named_parameters()}
        statistics = {name: value.clone() for name, value in model.key.named_buffers()}
        seen: dict[str, Tensor] = {}
        model.key.network.backbone.bn1.register_forward_pre_hook(
            lambda module, _inputs: seen.update(scale=module.weight.clone())
        )
        step(model, random_batch())
        for name, value in model.key.named_parameters():
            assert_close(value, 0.75 * start[name] + 0.25 * query[name])
        assert_close(seen["scale"], model.key.network.backbone.bn1.weight, rtol=0, atol=0)
        mean = "network.backbone.bn1.running_mean"
        key, own = dict(model.key.named_buffers())[mean], dict(model.query.named_buffers())[mean]
        assert not torch.equal(key, statistics[mean])
        assert not torch.allclose(key, own)

    def test_it_starts_as_a_copy(self) -> None:
        model = build()
        assert_close(model.key.state_dict(), model.query.state_dict(), rtol=0, atol=0)


class TestNothingToCompare:
    def test_no_boxes_at_all(self) -> None:
        model = build()
        output = step(model, random_batch((0, 0)))
        assert (output.losses["box"], output.losses["intra"]) == (0, 0)
        assert output.loss.item() == output.losses["image"].item() > 0
        for name, grad in gradients(model).items():
            assert grad is not None, name
            assert grad.isfinite().all(), name
            if name.startswith(("network.fpn.", "box_head.")):
                assert grad.abs().max() == 0, name
        assert int(model.box_queue.pointer) == 0
        assert all(torch.isfinite(value) for value in output.monitors.values())

    def test_no_pair_of_different_objects(self) -> None:
        output = step(build(), random_batch((1, 1, 0)))
        assert output.losses["intra"] == 0
        assert output.losses["box"] > 0

    def test_image_gradients_are_those_without_the_object_losses(self) -> None:
        without, alone = build(dropout=0.0), build(dropout=0.0)
        step(without, random_batch((0, 0)))
        torch.manual_seed(0)
        model = ContrastivePretraining(settings(dropout=0.0, objective="mocov2"), "resnet18", 10, SIZE)
        model.query.load_state_dict(alone.query.state_dict(), strict=False)
        model.key.load_state_dict(alone.key.state_dict(), strict=False)
        model.image_queue.load_state_dict(alone.image_queue.state_dict())
        step(model, random_batch((0, 0)))
        for name, grad in gradients(model).items():
            assert_close(grad, gradients(without)[name])


class TestSwitches:
    def test_mocov2_is_the_plain_formula_and_pools_no_boxes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def forbidden(*_: object) -> None:
            raise AssertionError("boxes were pooled")

        monkeypatch.setattr(encoder_module, "pool_samples", forbidden)
        model = build(objective="mocov2", dropout=0.0)
        assert model.query.box_head is None
        assert not hasattr(model, "box_queue")
        batch = random_batch()
        keep = copy.deepcopy(model)
        query = normalize(keep.query.image_head(keep.query.network.stages(batch.query_images)["res5"].mean((2, 3))))
        key = normalize(keep.key.image_head(keep.key.network.stages(batch.key_images)["res5"].mean((2, 3))))
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ keep.image_queue.keys.T], 1) / 0.2
        expected = cross_entropy(logits, torch.zeros(len(query), dtype=torch.long))
        output = step(model, ViewBatch(batch.query_images, batch.key_images, [], []))
        assert list(output.losses) == ["image"]
        assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert_close(model.image_queue.keys[:4], key.detach())
        assert all(grad is not None for grad in gradients(model).values())

    @pytest.mark.parametrize("off", ["image", "box", "intra"])
    def test_weight_0_switches_a_part_off(self, off: str) -> None:
        model = build(**{f"weight_{off}": 0.0})
        output = step(model, random_batch())
        assert set(output.losses) == {"image", "box", "intra"} - {off}
        assert hasattr(model, "image_queue") == (off != "image")
        assert hasattr(model, "box_queue") == (off != "box")
        assert ("valid_jitters" in output.monitors) == (off != "box")
        assert all(grad is not None for grad in gradients(model).values())

    def test_without_the_box_loss_no_jitter_is_embedded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pooled: list[int] = []
        pool = encoder_module.pool_samples
        monkeypatch.setattr(
            encoder_module,
            "pool_samples",
            lambda pyramid, samples: (pooled.append(len(samples)), pool(pyramid, samples))[1],
        )
        step(build(weight_box=0.0), random_batch())
        assert pooled == [sum(COUNTS), sum(COUNTS)]

    def test_all_weights_0_is_the_users_mistake(self) -> None:
        with pytest.raises(UserError, match="weight 0"):
            build(weight_image=0.0, weight_box=0.0, weight_intra=0.0)
        with pytest.raises(UserError, match="mocov2"):
            build(objective="mocov2", weight_image=0.0)


class TestNegatives:
    def test_those_of_the_batch_are_the_keys_of_its_other_images(self) -> None:
        model = build(negatives="batch", dropout=0.0)
        assert not hasattr(model, "image_queue")
        assert not hasattr(model, "box_queue")
        part = model(random_batch())
        images = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
        for kind, rows in (("image", torch.arange(4)), ("box", images)):
            logits = part.queries[kind] @ part.keys[kind].T / 0.2
            own = torch.eye(len(rows), dtype=torch.bool)
            logits[(rows.unsqueeze(1) == rows) & ~own] = -torch.inf
            assert_close(part.losses[kind], cross_entropy(logits, torch.arange(len(rows))))
        output = step(model, random_batch())
        assert output.monitors["image_accuracy"] == output.monitors["image_batch_accuracy"]
        assert "image_queue_similarity" not in output.monitors
        assert all(grad is not None and grad.isfinite().all() for grad in gradients(model).values())

    def test_both_are_those_of_the_batch_and_of_the_queue(self) -> None:
        model = build(negatives="both", dropout=0.0)
        part = model(random_batch())
        queries, keys = part.queries["image"], part.keys["image"]
        logits = torch.cat([queries @ keys.T, queries @ model.image_queue.keys.T], 1) / 0.2
        assert_close(part.losses["image"], cross_entropy(logits, torch.arange(4)))
        step(model, random_batch())
        assert int(model.image_queue.pointer) == 4
        assert int(model.box_queue.pointer) == sum(COUNTS)

    def test_a_batch_without_boxes_or_with_those_of_one_image(self) -> None:
        none = step(build(negatives="batch"), random_batch((0, 0)))
        assert (none.losses["box"], none.monitors["box_accuracy"]) == (0, 0)
        model = build(negatives="batch")
        one = step(model, random_batch((3, 0)))
        assert one.losses["box"] == 0
        assert all(grad is not None and grad.isfinite().all() for grad in gradients(model).values())


class TestHeads:
    def test_settings_reach_both_encoders(self) -> None:
        model = build(head_init="pytorch", head_norm="batch", zero_init_last=True)
        for encoder in (model.query, model.key):
            assert encoder.image_head.hidden.bias.abs().max() > 0
            assert hasattr(encoder.box_head, "norm")
            assert encoder.network.backbone.layer1[0].bn2.weight.abs().max() == 0
        step(model, random_batch())
        assert all(grad is not None and grad.isfinite().all() for grad in gradients(model).values())
        step(model, random_batch((0, 0)))


class TestSplitBatchNorm:
    def test_each_group_is_embedded_as_if_alone(self) -> None:
        whole, split = build(dropout=0.0), build(dropout=0.0, split_bn=2)
        batch = random_batch((2, 1, 0, 3))
        with torch.no_grad():
            features = split.query(batch.query_images)
            images, boxes = (
                split.query.embed_images(features.pooled),
                split.query.embed_boxes(features.pyramid, batch.query_boxes),
            )
            expected = [whole.query(batch.query_images[part]) for part in (slice(0, 2), slice(2, 4))]
            together = whole.query(batch.query_images).pooled
        pooled = torch.cat([part.pooled for part in expected])
        assert_close(features.pooled, pooled, rtol=0, atol=0)
        assert not torch.allclose(features.pooled, together)
        assert_close(images, whole.query.embed_images(pooled))
        first = whole.query.embed_boxes(expected[0].pyramid, batch.query_boxes[:2])
        second = whole.query.embed_boxes(expected[1].pyramid, batch.query_boxes[2:])
        assert_close(boxes, torch.cat([first, second]))

    def test_key_images_change_groups_and_their_keys_come_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = build(split_bn=2, dropout=0.0)
        batch = random_batch((1, 2, 3, 1))
        order = torch.tensor([2, 0, 3, 1])
        monkeypatch.setattr(torch, "randperm", lambda count: order)
        keys = model(batch).keys["image"]
        with torch.no_grad():
            shuffled = model.key.embed_images(model.key(batch.key_images[order]).pooled)
        assert_close(keys, shuffled[order.argsort()])
        boxes = torch.cat(
            [model.key.embed_boxes(model.key(batch.key_images[order]).pyramid, [batch.key_boxes[i] for i in order])]
        )
        places = torch.split(torch.arange(7), [3, 1, 1, 2])
        unjittered = boxes[torch.cat([places[i] for i in order.argsort()])]
        seen: list[Tensor] = []
        intra = losses.intra_image_hinge
        monkeypatch.setattr(objective, "intra_image_hinge", lambda *inputs: (seen.append(inputs[1]), intra(*inputs))[1])
        model(batch)
        assert_close(seen[0], unjittered)

    def test_evaluation_sees_no_groups(self) -> None:
        whole, split = build().eval(), build(split_bn=2).eval()
        images = random_batch().query_images
        assert_close(split.query(images).pooled, whole.query(images).pooled, rtol=0, atol=0)


class TestCandidates:
    def test_invalid_jitters_are_not_embedded_and_the_box_itself_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[Tensor] = []
        candidates_of = plan.key_candidates

        def spy(*arguments: Any) -> Any:
            candidates = candidates_of(*arguments)
            made.append(candidates.valid)
            return candidates

        monkeypatch.setattr(plan, "key_candidates", spy)
        model = build(jitters=20)
        rows: list[int] = []
        model.key.box_head.register_forward_hook(lambda _module, _inputs, output: rows.append(len(output)))
        output = step(model, random_batch())
        assert rows == [int(made[0].sum())]
        assert sum(COUNTS) < rows[0] < 21 * sum(COUNTS)
        assert output.monitors["valid_jitters"].item() == pytest.approx(made[0][:, :-1].float().mean().item())

    def test_the_hard_positive_is_no_easier_than_the_box_itself(self) -> None:
        hard, plain = build(dropout=0.0), build(dropout=0.0, jitters=0)
        assert step(hard, random_batch()).losses["box"] > step(plain, random_batch()).losses["box"]


class TestMonitors:
    def test_figures(self) -> None:
        model = build(total_steps=10)
        model.step.fill_(4)
        monitors = step(model, random_batch()).monitors
        assert set(monitors) == {
            "image_accuracy", "image_batch_accuracy", "image_embedding_std", "image_queue_age", "image_queue_filled",
            "image_positive_similarity", "image_batch_similarity", "image_queue_similarity",
            "box_accuracy", "box_batch_accuracy", "box_embedding_std", "box_queue_age", "box_queue_filled",
            "box_positive_similarity", "box_batch_similarity", "box_queue_similarity",
            "valid_jitters", "iou_threshold", "centre_magnitude", "size_magnitude", "boxes_per_image",
        }  # fmt: skip
        assert monitors["iou_threshold"].item() == pytest.approx(0.6)
        assert monitors["centre_magnitude"].item() == pytest.approx(0.375)
        assert monitors["boxes_per_image"].item() == pytest.approx(1.5)
        assert all(value.ndim == 0 and not value.requires_grad for value in monitors.values())

    def test_they_compare_with_the_queue_that_the_loss_saw(self) -> None:
        model = build(dropout=0.0)
        queue, other = model.image_queue.keys.clone(), copy.deepcopy(model)
        output = step(model, random_batch())
        torch.manual_seed(7)
        other.begin_step()
        part = other(random_batch())
        expected = (part.queries["image"] @ queue.T).mean()
        assert_close(output.monitors["image_queue_similarity"], expected)
        own = (part.queries["image"] * part.keys["image"]).sum(1).mean()
        assert_close(output.monitors["image_positive_similarity"], own)
        assert output.monitors["image_queue_filled"].item() == pytest.approx(0.4)

    def test_they_are_left_out_where_nobody_asks(self) -> None:
        model, other = build(), build()
        step(model, random_batch())
        torch.manual_seed(7)
        other.begin_step()
        totals = other.totals(random_batch())
        part = other(random_batch(), totals)
        assert other.end_step([part], totals, monitor=False).monitors == {}
        assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


class TestSaving:
    def test_a_loaded_state_goes_on_exactly(self) -> None:
        model, other = build(), build(total_steps=10)
        step(model, random_batch())
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1)
        other.load_state_dict(model.state_dict())
        assert int(other.step) == 1
        losses = [step(each, random_batch(seed=2)).loss.item() for each in (model, other)]
        assert losses[0] == losses[1]
        assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)

    def test_the_state_holds_queues_pointers_and_step(self) -> None:
        held = set(build().state_dict())
        assert {"step", "image_queue.keys", "image_queue.pointer", "box_queue.keys", "box_queue.pointer"} <= held


class Seen:
    """The intermediate values of one step."""

    def __init__(self, low: bool) -> None:
        model = build(dropout=0.0)
        model.begin_step()
        with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16, enabled=low), torch.no_grad():
            patch.setattr(plan, "key_candidates", self._candidates)
            patch.setattr(objective, "hardest_candidates", self._hardest)
            patch.setattr(objective, "intra_image_hinge", self._intra)
            torch.manual_seed(7)
            self.output = model(random_batch())
        self.settings, self.image_queue, self.box_queue = model.settings, model.image_queue.keys, model.box_queue.keys

    def _candidates(self, *arguments: Any) -> Any:
        self.candidates = key_candidates(*arguments)
        return self.candidates

    def _hardest(self, queries: Tensor, embeddings: Tensor, valid: Tensor) -> Tensor:
        self.embeddings = embeddings
        return losses.hardest_candidates(queries, embeddings, valid)

    def _intra(self, *arguments: Any) -> Tensor:
        self.intra = arguments
        return losses.intra_image_hinge(*arguments)


class TestAutocast:
    """Under autocast, the networks run in bf16 and everything after the embeddings in float32.

    No tolerance here depends on a processor's bf16 rounding or summation order.
    """

    def test_geometry_is_the_same_to_the_bit(self) -> None:
        exact, low = Seen(low=False), Seen(low=True)
        assert torch.equal(low.candidates.boxes, exact.candidates.boxes)
        assert torch.equal(low.candidates.valid, exact.candidates.valid)

    def test_losses_are_the_float32_losses_of_the_embeddings(self) -> None:
        """In float64, the same embeddings give the same losses up to float32 rounding: similarities, sums of 8
        products, are off by 8 * 2^-24, 5e-7, and logits by 5 times that. In bf16, similarities would be off by 2^-8,
        4e-3."""
        seen = Seen(low=True)
        queries, keys = (
            {kind: rows.double() for kind, rows in each.items()} for each in (seen.output.queries, seen.output.keys)
        )
        assert {value.dtype for value in seen.output.losses.values()} == {torch.float32}
        assert {rows.dtype for rows in (*seen.output.queries.values(), *seen.output.keys.values())} == {torch.float32}
        box_queries, intra_keys, *others = seen.intra
        expected = {
            "image": losses.info_nce(queries["image"], keys["image"], seen.image_queue.double(), 0.2)[0],
            "box": losses.info_nce(queries["box"], keys["box"], seen.box_queue.double(), 0.2)[0],
            "intra": losses.intra_image_hinge(box_queries.double(), intra_keys.double(), *others),
        }
        for name, value in expected.items():
            assert seen.output.losses[name].item() == pytest.approx(value.item(), rel=1e-5), name

    def test_losses_move_no_further_than_the_embeddings_do(self) -> None:
        """A similarity of unit vectors changes by at most |dq| + |dk|, the largest changes of a query and of a key.

        So does the lowest similarity of several candidates. InfoNCE changes by at most twice the largest change of a
        logit, since its gradient over the logits has an absolute sum of at most 2; a hinge has two similarities.
        """
        exact, low = Seen(low=False), Seen(low=True)

        def moved(first: Tensor, second: Tensor) -> float:
            return (first - second).norm(dim=1).max().item()

        image = sum(
            moved(getattr(exact.output, side)["image"], getattr(low.output, side)["image"])
            for side in ("queries", "keys")
        )
        box = moved(exact.output.queries["box"], low.output.queries["box"]) + moved(exact.embeddings, low.embeddings)
        limits = {"image": 2 * image / 0.2, "box": 2 * box / 0.2, "intra": 2 * box}
        for name, limit in limits.items():
            difference = abs(exact.output.losses[name].item() - low.output.losses[name].item())
            assert 0 < difference <= limit, name
