"""The objective's components match the authors' code; all inputs are stored."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ccop_pretrain.method.boxes import box_iou
from ccop_pretrain.method.curriculum import BoxNoise
from ccop_pretrain.method.jitter import JitterDraws, key_candidates
from ccop_pretrain.method.losses import hardest_candidates, image_pairs, info_nce, intra_image_hinge
from ccop_pretrain.method.pooling import box_levels, pool_boxes
from ccop_pretrain.method.queues import KeyQueue
from torch import Tensor
from torch.testing import assert_close

from .folder import ParityFolder

Get = Callable[[str], Tensor]


@pytest.fixture(scope="module")
def get(parity: ParityFolder) -> Get:
    arrays = parity.npz("functional.npz")
    return lambda name: torch.from_numpy(np.asarray(arrays[name]))


def test_levels(get: Get) -> None:
    sides = get("level_sizes")
    boxes = torch.stack([torch.zeros_like(sides), torch.zeros_like(sides), sides, sides], 1)
    # The authors pool boxes of more than 224 px from p2, a bug that 224 px images never trigger.
    expected = torch.where(sides > 224, 5, get("level_p"))
    assert (box_levels(boxes, 224) + 2).tolist() == expected.tolist()


def test_roi_align_on_the_pyramid(get: Get) -> None:
    pyramid = {level: get(f"pool_feat_{level}").float() for level in ("p2", "p3", "p4", "p5")}
    pooled = pool_boxes(pyramid, [get("pool_boxes0"), get("pool_boxes1")], 224)
    assert_close(pooled.flatten(1), get("pool_out"), rtol=1e-5, atol=1e-5)


def test_jitter_in_an_image_that_is_not_square(get: Get) -> None:
    # The stored overlaps and flags were computed with these magnitudes and this threshold.
    noise = BoxNoise(
        iou_threshold=torch.tensor(0.5), centre_magnitude=torch.tensor(0.5), size_magnitude=torch.tensor(1.0)
    )
    found = key_candidates(get("jit_in"), JitterDraws(get("jit_xy"), get("jit_wh")), noise, (120, 200))
    assert_close(found.boxes, get("jit_out"), rtol=0, atol=4e-5)
    assert_close(found.iou, get("jit_iou"), rtol=0, atol=1e-6)
    assert found.valid.tolist() == (~get("jit_invalid")).tolist()


def test_pair_iou(get: Get) -> None:
    assert_close(box_iou(get("jit_in"), get("jit_in")), get("pair_iou"))


@pytest.mark.parametrize("case", ["intra", "intra2"])
def test_intra_image_loss(get: Get, case: str) -> None:
    queries = get(f"{case}_q").double().requires_grad_()
    boxes = torch.split(get("intra_boxes"), get("intra_num").tolist())
    loss = intra_image_hinge(queries, get(f"{case}_k").double(), image_pairs(boxes, iou_limit=0.05), margin=0.4)
    loss.backward()
    assert loss.item() == pytest.approx(get(f"{case}_loss").item(), rel=1e-6)
    assert_close(queries.grad, get(f"{case}_grad").double(), rtol=1e-5, atol=1e-7)


def test_hard_positive_and_info_nce(get: Get) -> None:
    queries = get("nce_q").double().requires_grad_()
    candidates, valid = get("nce_k").double(), ~get("nce_invalid")
    choice = hardest_candidates(queries, candidates[valid], valid)
    assert choice.tolist() == get("nce_idx").tolist()
    hard = candidates[torch.arange(len(choice)), choice]
    loss, _ = info_nce(queries, hard, get("nce_queue").double().T, temperature=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(get("nce_loss").item(), rel=1e-6)
    assert_close(queries.grad, get("nce_grad").double(), rtol=1e-5, atol=1e-7)


def test_queue_ring(get: Get) -> None:
    """Four batches of 25 keys into 64 slots; each key contains its batch number and its index in the batch."""
    queue = KeyQueue(64, 16, "drop")
    for number, pointer in enumerate(get("queue_ptrs").tolist(), start=1):
        keys = torch.zeros(25, 16)
        keys[:, 0], keys[:, 1] = torch.arange(25), number
        queue.enqueue(keys)
        assert int(queue.pointer) == pointer
    assert_close(queue.keys[:, 0], get("queue_end_row0"), rtol=0, atol=0)
    assert_close(queue.keys[:, 1], get("queue_end_row1"), rtol=0, atol=0)
