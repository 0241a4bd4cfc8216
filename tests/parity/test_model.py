"""One step of the objective matches the authors' code, in float64, with a ResNet-50 at 224 px."""

import dataclasses
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from ccop_pretrain.method import objective, plan
from ccop_pretrain.method.batch import ViewBatch
from ccop_pretrain.method.jitter import Candidates, draw_jitters, key_candidates
from ccop_pretrain.method.losses import different_objects, hardest_candidates
from ccop_pretrain.method.objective import ContrastivePretraining
from ccop_pretrain.method.pooling import pool_boxes
from torch import Tensor

from .authors import LOSSES, build, make_batch, normalise, parameters, prepare, seed_step, split_boxes, tensors
from .folder import ParityFolder

CASES = {
    "it0": {"step": 0},
    "it50": {"step": 50},
    "it99": {"step": 99},
    "wrap": {"step": 99, "image_pointer": 508, "box_pointer": 1010},
}
# Difference between our float64 numbers and the authors', which were stored as float32.
STORED = {"rtol": 1e-5, "atol": 2e-6}
# Individual jitters differ in the last float32 digit, depending on the processor's `exp`.
LOSS_RTOL = 1e-8
GRADIENT_RTOL = 1e-6


@pytest.fixture(scope="module")
def model(recipe: ModuleType) -> ContrastivePretraining:
    return build(recipe)


@pytest.fixture(scope="module")
def batch(parity: ParityFolder, recipe: ModuleType) -> ViewBatch:
    return make_batch(recipe, parity.npz("boxes.npz"))


class Step(NamedTuple):
    """The outcome of one forward and backward pass."""

    losses: dict[str, float]
    total: float
    choice: list[int]
    monitors: dict[str, float]
    gradients: dict[str, Tensor]
    key: dict[str, Tensor]
    buffers: dict[str, Tensor]
    image_queue: Tensor
    box_queue: Tensor
    pointers: tuple[int, int]


def take_step(model: ContrastivePretraining, batch: ViewBatch, seed: int, jittered: Tensor | None = None) -> Step:
    """Run one step; `jittered` replaces the candidates' boxes, from which it may differ only by rounding."""
    choice: list[int] = []

    def candidates_of(*arguments: Any) -> Candidates:
        candidates = key_candidates(*arguments)
        if jittered is None:
            return candidates
        close(candidates.boxes, jittered, rtol=0, atol=4e-5)
        return dataclasses.replace(candidates, boxes=jittered)

    def spy(*arguments: Tensor) -> Tensor:
        columns = hardest_candidates(*arguments)
        choice.extend(columns.tolist())
        return columns

    seed_step(seed, len(batch.query_images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "hardest_candidates", spy)
        patch.setattr(plan, "key_candidates", candidates_of)
        model.begin_step()
        totals = model.totals(batch)
        part = model(batch, totals)
        part.loss.backward()
        output = model.end_step([part], totals)
    sides = {"q": tensors(model.query), "k": tensors(model.key)}
    return Step(
        losses={name: value.item() for name, value in output.losses.items()},
        total=output.loss.item(),
        choice=choice,
        monitors={name: value.item() for name, value in output.monitors.items()},
        gradients={name: tensor.grad for name, tensor in parameters(model.query).items()},
        key={name: tensor.clone() for name, tensor in parameters(model.key).items()},
        buffers={
            f"{side}.{name}": tensor.clone()
            for side, named in sides.items()
            for name, tensor in named.items()
            if "running" in name
        },
        image_queue=model.image_queue.keys.clone(),
        box_queue=model.box_queue.keys.clone(),
        pointers=(int(model.image_queue.pointer), int(model.box_queue.pointer)),
    )


class Case(NamedTuple):
    name: str
    step: Step
    expected: dict[str, Any]
    arrays: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=list(CASES))
def case(
    request: pytest.FixtureRequest,
    parity: ParityFolder,
    recipe: ModuleType,
    model: ContrastivePretraining,
    batch: ViewBatch,
) -> Case:
    arrays = parity.npz(f"model_{request.param}.npz")
    facts = parity.json("model.json")
    if request.param not in facts["cases"]:
        pytest.skip(f"the case {request.param} is not in model.json")
    prepare(model, recipe, facts["shapes"], **CASES[request.param])
    step = take_step(model, batch, recipe.SEED["jitter"])
    return Case(request.param, step, facts["cases"][request.param], arrays)


def close(actual: Tensor, expected: Any, **tolerance: float) -> None:
    torch.testing.assert_close(
        actual.detach().double(), torch.from_numpy(np.asarray(expected)).double(), **(tolerance or STORED)
    )


class TestStep:
    def test_losses(self, case: Case) -> None:
        for theirs, ours in LOSSES.items():
            assert case.step.losses[ours] == pytest.approx(case.expected["losses64"][theirs], rel=LOSS_RTOL)
        assert case.step.total == pytest.approx(case.expected["total64"], rel=LOSS_RTOL)

    def test_hard_choices(self, case: Case) -> None:
        assert case.step.choice == case.expected["min_inds"]

    def test_norms_of_all_gradients(self, case: Case) -> None:
        norms = {name: grad.norm().item() for name, grad in case.step.gradients.items()}
        assert len(norms) == 191
        assert norms == pytest.approx(case.expected["grad_norm64"], rel=GRADIENT_RTOL)

    def test_slices_of_gradients(self, case: Case) -> None:
        for name, values in case.expected["grad_slice64"].items():
            grad = case.step.gradients[name].flatten()[: len(values)]
            # The last digit of the float32 jitters affects single elements more than norms.
            close(grad, values, rtol=1e-5, atol=1e-6 * max(map(abs, values)))

    def test_curriculum(self, case: Case) -> None:
        names = {"xy_mag": "centre_magnitude", "wh_mag": "size_magnitude", "iou_thr": "iou_threshold"}
        for theirs, ours in names.items():
            assert case.step.monitors[ours] == pytest.approx(case.expected["curr"][theirs], abs=1e-7)

    def test_moving_average(self, case: Case) -> None:
        for name, norm in case.expected["key_norm32"].items():
            assert case.step.key[name].norm().item() == pytest.approx(norm, rel=1e-5)
        for name, values in case.expected["key_slice32"].items():
            close(case.step.key[name].flatten()[: len(values)], values, rtol=1e-6, atol=1e-8)

    def test_running_statistics(self, case: Case) -> None:
        for name, norm in case.expected["bn64"].items():
            assert case.step.buffers[name].norm().item() == pytest.approx(norm, rel=1e-9)

    def test_queues(self, case: Case, recipe: ModuleType) -> None:
        assert case.step.pointers == (case.expected["img_ptr"], case.expected["roi_ptr"])
        for initial, ours, theirs in zip(
            recipe.queues(), (case.step.image_queue, case.step.box_queue), ("img_queue", "roi_queue"), strict=True
        ):
            changed = torch.from_numpy(case.arrays[f"{theirs}_changed_cols"])
            close(ours[changed], case.arrays[f"{theirs}_new"].T)
            kept = torch.ones(len(ours), dtype=torch.bool).index_fill(0, changed, False)
            close(ours[kept], initial.T[kept], rtol=0, atol=0)


class Seen(NamedTuple):
    """Both encoders' outputs after one EMA update; they do not depend on the curriculum step."""

    query_stages: dict[str, Tensor]
    key_stages: dict[str, Tensor]
    query_pyramid: dict[str, Tensor]
    key_pyramid: dict[str, Tensor]
    embeddings: dict[str, Tensor]


@pytest.fixture(scope="module")
def seen(parity: ParityFolder, recipe: ModuleType, model: ContrastivePretraining, batch: ViewBatch) -> Seen:
    return look(prepare(model, recipe, parity.json("model.json")["shapes"], step=0), batch)


@torch.no_grad()
def look(model: ContrastivePretraining, batch: ViewBatch) -> Seen:
    model.begin_step()
    stages, pyramids, embeddings = {}, {}, {}
    for side, encoder, images, boxes in (
        ("q", model.query, batch.query_images, batch.query_boxes),
        ("k", model.key, batch.key_images, batch.key_boxes),
    ):
        stages[side] = encoder.network.stages(images)
        pyramids[side] = encoder.network.pyramid(stages[side])
        embeddings[f"img_embed_{side}"] = encoder.embed_images(stages[side]["res5"].mean(dim=(2, 3)))
        embeddings["roi_embed_q" if side == "q" else "roi_embed_k_ori"] = encoder.embed_boxes(pyramids[side], boxes)
    return Seen(stages["q"], stages["k"], pyramids["q"], pyramids["k"], embeddings)


class TestEncoders:
    def test_embeddings(self, parity: ParityFolder, seen: Seen) -> None:
        expected = parity.npz("model_common.npz")
        for name, embedding in seen.embeddings.items():
            close(embedding, expected[name], rtol=0, atol=3e-7)

    @pytest.mark.parametrize("side", ["q", "k"])
    @pytest.mark.parametrize("level", ["p2", "p3", "p4", "p5", "p6", "res5"])
    def test_feature_maps(self, parity: ParityFolder, seen: Seen, side: str, level: str) -> None:
        expected = parity.npz("model_common.npz")
        stages, pyramid = (
            (seen.query_stages, seen.query_pyramid) if side == "q" else (seen.key_stages, seen.key_pyramid)
        )
        features = (stages | pyramid)[level]
        images, channels, height, width = expected[f"{side}_{level}_slice"].shape
        close(features[:images, :channels, :height, :width], expected[f"{side}_{level}_slice"])
        flat = features.flatten(1)
        close(torch.stack([flat.mean(1), flat.std(1)], 1), expected[f"{side}_{level}_mean_std"], rtol=1e-9, atol=1e-9)

    def test_pooled_boxes(self, parity: ParityFolder, recipe: ModuleType, seen: Seen, batch: ViewBatch) -> None:
        expected = parity.npz("model_common.npz")
        pooled = pool_boxes(seen.query_pyramid, batch.query_boxes, recipe.SIZE).flatten(1)
        close(torch.stack([pooled.mean(1), pooled.std(1)], 1), expected["roi_pooled_q_stat"])
        close(pooled[:, ::1567], expected["roi_pooled_q_slice"])

    def test_pairs_within_the_first_image(self, parity: ParityFolder, seen: Seen, batch: ViewBatch) -> None:
        expected = parity.npz("model_common.npz")
        count = len(batch.key_boxes[0])
        queries, keys = (seen.embeddings[name][:count] for name in ("roi_embed_q", "roi_embed_k_ori"))
        close(queries @ keys.T, expected["intra_sim_0"])
        assert different_objects(batch.key_boxes[:1], 0.05)[0].tolist() == expected["intra_valid_0"].tolist()

    def test_pair_counts(self, case: Case, batch: ViewBatch) -> None:
        pairs = different_objects(batch.key_boxes, 0.05).sum(dim=(1, 2))
        assert pairs.tolist() == case.expected["intra_valid_counts"]


def jitter(model: ContrastivePretraining, batch: ViewBatch, recipe: ModuleType, step: int) -> Candidates:
    seed_step(recipe.SEED["jitter"], len(batch.key_boxes))
    draws = draw_jitters([len(boxes) for boxes in batch.key_boxes], recipe.J)
    noise = model.curriculum.noise(torch.tensor(step))
    return key_candidates(torch.cat(batch.key_boxes), draws, noise, (recipe.SIZE, recipe.SIZE))


@torch.no_grad()
def embed_all(model: ContrastivePretraining, seen: Seen, batch: ViewBatch, candidates: Candidates) -> Tensor:
    """(N, J + 1, D) embeddings, including invalid candidates, which the objective skips."""
    counts = [len(boxes) for boxes in batch.key_boxes]
    by_image = [boxes.flatten(0, 1) for boxes in torch.split(candidates.boxes, counts)]
    return model.key.embed_boxes(seen.key_pyramid, by_image).view(*candidates.valid.shape, -1)


def check_choice(
    model: ContrastivePretraining, seen: Seen, batch: ViewBatch, candidates: Candidates, arrays: dict[str, np.ndarray]
) -> Tensor:
    """Check similarities and the selection of hard positives; returns the selected embeddings."""
    embeddings, queries = embed_all(model, seen, batch, candidates), seen.embeddings["roi_embed_q"]
    similarity = (queries.unsqueeze(1) * embeddings).sum(-1)
    # The authors add 5 to the similarity of an invalid candidate.
    close(similarity + 5 * ~candidates.valid, arrays["sel_sim"], rtol=0, atol=1e-6)
    choice = hardest_candidates(queries, embeddings[candidates.valid], candidates.valid)
    assert choice.tolist() == arrays["min_inds"].tolist()
    return embeddings[torch.arange(len(choice)), choice]


class TestHardPositives:
    def test_draws(self, parity: ParityFolder, recipe: ModuleType, batch: ViewBatch) -> None:
        expected = parity.npz("model_common.npz")
        seed_step(recipe.SEED["jitter"], len(batch.key_boxes))
        draws = draw_jitters([len(boxes) for boxes in batch.key_boxes], recipe.J)
        close(draws.centre, expected["draws_xy"], rtol=0, atol=0)
        close(draws.size, expected["draws_wh"], rtol=0, atol=0)

    def test_choice(
        self, case: Case, seen: Seen, model: ContrastivePretraining, batch: ViewBatch, recipe: ModuleType
    ) -> None:
        candidates = jitter(model, batch, recipe, CASES[case.name]["step"] + 1)
        close(candidates.boxes, case.arrays["jit_boxes"], rtol=0, atol=1e-4)
        assert candidates.valid.tolist() == (~case.arrays["invalid"]).tolist()
        hard = check_choice(model, seen, batch, candidates, case.arrays)
        close(hard, case.arrays["roi_pos_embed"], rtol=0, atol=1e-6)

    def test_embeddings_of_all_candidates(
        self, parity: ParityFolder, seen: Seen, model: ContrastivePretraining, batch: ViewBatch, recipe: ModuleType
    ) -> None:
        embeddings = embed_all(model, seen, batch, jitter(model, batch, recipe, 1))
        close(embeddings, parity.npz("model_common.npz")["roi_embed_k_it0"], rtol=0, atol=1e-6)


ALIGNED_STEP = 50


def align(parity: ParityFolder, recipe: ModuleType, model: ContrastivePretraining, batch: ViewBatch) -> ViewBatch:
    """Load the aligned case's initial state into the model; returns its batch."""
    boxes = parity.npz("model_aligned.npz")["boxes_k"]
    prepare(model, recipe, parity.json("model.json")["shapes"], ALIGNED_STEP, key_seed=recipe.SEED["weights_q"])
    views = recipe.images()
    key = normalise(0.97 * views[:, 0] + 0.03 * views[:, 1], torch.float64)
    return ViewBatch(batch.query_images, key, batch.query_boxes, split_boxes(boxes, map(len, batch.query_boxes)))


class TestAligned:
    """Identical encoders that see nearly the same image: the only case in which some hinges are inactive."""

    def test_choice_and_hinges(
        self, parity: ParityFolder, recipe: ModuleType, model: ContrastivePretraining, batch: ViewBatch
    ) -> None:
        aligned = align(parity, recipe, model, batch)
        expected, arrays = parity.json("model.json")["aligned"], parity.npz("model_aligned.npz")
        seen = look(model, aligned)
        for name in ("roi_embed_q", "roi_embed_k_ori"):
            close(seen.embeddings[name], arrays[name], rtol=0, atol=1e-6)
        check_choice(model, seen, aligned, jitter(model, aligned, recipe, ALIGNED_STEP + 1), arrays)
        active = pairs = start = 0
        for boxes, different in zip(aligned.key_boxes, different_objects(aligned.key_boxes, 0.05), strict=True):
            rows = slice(start, start + len(boxes))
            similarity = seen.embeddings["roi_embed_q"][rows] @ seen.embeddings["roi_embed_k_ori"][rows].T
            hinge = (similarity - similarity.diag() + 0.4)[different[: len(boxes), : len(boxes)]]
            active, pairs, start = active + int((hinge > 0).sum()), pairs + len(hinge), rows.stop
        assert pairs == expected["n_pairs"]
        assert active / pairs == pytest.approx(expected["hinge_active_share"])

    def test_step(
        self, parity: ParityFolder, recipe: ModuleType, model: ContrastivePretraining, batch: ViewBatch
    ) -> None:
        aligned = align(parity, recipe, model, batch)
        expected = parity.json("model.json")["aligned"]
        step = take_step(model, aligned, recipe.SEED["jitter"])
        assert step.choice == expected["min_inds"]
        for theirs, ours in LOSSES.items():
            # The key image is mixed in float32, so it only matches to that precision.
            assert step.losses[ours] == pytest.approx(expected["losses64"][theirs], rel=1e-7)
        norms = {name: grad.norm().item() for name, grad in step.gradients.items()}
        assert {name: norms[name] for name in expected["grad_norm64"]} == pytest.approx(
            expected["grad_norm64"], rel=GRADIENT_RTOL
        )


class TestTrajectory:
    def test_three_steps_of_sgd(
        self, parity: ParityFolder, recipe: ModuleType, model: ContrastivePretraining, batch: ViewBatch
    ) -> None:
        facts = parity.json("model.json")
        expected = facts["trajectory"]
        prepare(model, recipe, facts["shapes"], step=0)
        optimiser = torch.optim.SGD(
            model.query.parameters(),
            lr=expected["lr"],
            momentum=expected["momentum"],
            weight_decay=expected["weight_decay"],
            nesterov=expected["nesterov"],
        )
        # The first step uses the first case's jitters as stored: their last digits depend on the processor, and every
        # optimizer step would amplify the difference a thousandfold.
        stored = torch.from_numpy(parity.npz("model_it0.npz")["jit_boxes"])
        for number, (seed, step) in enumerate(zip(expected["jitter_seeds"], expected["steps"], strict=True)):
            optimiser.zero_grad()
            taken = take_step(model, batch, seed, stored if number == 0 else None)
            for theirs, ours in LOSSES.items():
                assert taken.losses[ours] == pytest.approx(step[theirs], rel=(1e-10, 1e-7, 1e-6)[number])
            assert taken.choice == step["min_inds"]
            optimiser.step()
        assert (int(model.step), taken.pointers) == (expected["iter"], (expected["img_ptr"], expected["roi_ptr"]))
        for side, encoder in (("q", model.query), ("k", model.key)):
            named = parameters(encoder)
            for name, norm in expected[f"{side}_norm"].items():
                assert named[name].norm().item() == pytest.approx(norm, rel=1e-9)
            for name, values in expected.get(f"{side}_slice", {}).items():
                close(named[name].flatten()[: len(values)], values, rtol=1e-7, atol=1e-10)
