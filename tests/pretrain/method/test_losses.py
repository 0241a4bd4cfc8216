import math

import pytest
import torch
from ccop_pretrain.method.losses import (
    candidate_rows,
    different_objects,
    hardest_candidates,
    image_pairs,
    info_nce,
    intra_image_hinge,
)
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close
from torchvision.ops import box_iou


def unit(*shape: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


class TestInfoNCE:
    def test_equal_embeddings_give_the_log_of_their_number(self) -> None:
        same = unit(1, 8)
        loss, accuracy = info_nce(same.expand(5, 8), same.expand(5, 8), same.expand(31, 8), temperature=0.2)
        assert loss.item() == pytest.approx(math.log(32))
        assert accuracy == 0

    def test_against_the_definition(self) -> None:
        queries, positives, negatives = unit(4, 8), unit(4, 8, seed=1), unit(6, 8, seed=2)
        terms = []
        for query, positive in zip(queries, positives, strict=True):
            scores = [math.exp(float(query @ key) / 0.3) for key in (positive, *negatives)]
            terms.append(-math.log(scores[0] / sum(scores)))
        loss, accuracy = info_nce(queries, positives, negatives, temperature=0.3)
        assert loss.item() == pytest.approx(sum(terms) / 4)
        hits = [float(q @ p) > max(float(q @ n) for n in negatives) for q, p in zip(queries, positives, strict=True)]
        assert accuracy == sum(hits) / 4

    def test_the_order_of_negatives_and_of_rows_does_not_matter(self) -> None:
        queries, positives, negatives = unit(4, 8), unit(4, 8, seed=1), unit(6, 8, seed=2)
        order = torch.tensor([2, 0, 3, 1])
        once, _ = info_nce(queries, positives, negatives, 0.2)
        again, _ = info_nce(queries[order], positives[order], negatives.flip(0), 0.2)
        assert_close(once, again)

    def test_no_queries_give_zero_with_zero_gradients(self) -> None:
        source = torch.ones(3, 8, requires_grad=True)
        loss, accuracy = info_nce(source[:0], source[:0].detach(), unit(6, 8).float(), 0.2)
        loss.backward()
        assert (loss.item(), accuracy.item()) == (0, 0)
        assert source.grad.abs().max() == 0

    def test_float32_under_autocast(self) -> None:
        queries, positives, negatives = unit(4, 64).float(), unit(4, 64, seed=1).float(), unit(96, 64, seed=2).float()
        plain, _ = info_nce(queries, positives, negatives, 0.2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under, _ = info_nce(queries, positives, negatives, 0.2)
        assert under.dtype == torch.float32
        assert_close(under, plain, rtol=0, atol=0)


BOXES = [
    torch.tensor([[0.0, 0, 50, 50], [2, 2, 52, 52], [60, 60, 100, 100]]),
    torch.tensor([[10.0, 10, 30, 30]]),
    torch.zeros(0, 4),
    torch.tensor([[0.0, 0, 20, 20], [30, 30, 60, 60]]),
]


class TestIntraImageHinge:
    def test_against_the_definition(self) -> None:
        queries, keys = unit(6, 8), unit(6, 8, seed=1)
        terms, start = [], 0
        for boxes in BOXES:
            for i in range(len(boxes)):
                for j in range(len(boxes)):
                    if box_iou(boxes[i : i + 1], boxes[j : j + 1]) < 0.05:
                        anchor = keys[start + j]
                        terms.append(max(0, float(queries[start + i] @ anchor - queries[start + j] @ anchor) + 0.4))
            start += len(boxes)
        loss = intra_image_hinge(queries, keys, image_pairs(BOXES, 0.05), margin=0.4)
        assert len(terms) == 6
        assert loss.item() == pytest.approx(sum(terms) / 6)

    def test_boxes_told_apart_by_more_than_the_margin_cost_nothing(self) -> None:
        vectors = torch.eye(6, 8)
        assert intra_image_hinge(vectors, vectors, image_pairs(BOXES, 0.05), margin=0.4) == 0

    def test_equal_embeddings_cost_the_margin(self) -> None:
        same = unit(1, 8).expand(6, 8)
        assert intra_image_hinge(same, same, image_pairs(BOXES, 0.05), margin=0.4).item() == pytest.approx(0.4)

    @pytest.mark.parametrize("boxes", [[BOXES[1]], [BOXES[2], BOXES[2]], [BOXES[0][:2]]], ids=["one", "none", "alike"])
    def test_no_pair_gives_zero_with_zero_gradients(self, boxes: list[Tensor]) -> None:
        source = torch.ones(4, 8, requires_grad=True)
        count = sum(map(len, boxes))
        loss = intra_image_hinge(source[:count], source[:count].detach(), image_pairs(boxes, 0.05), margin=0.4)
        loss.backward()
        assert loss.item() == 0
        assert source.grad.abs().max() == 0

    def test_pairs_are_symmetric_and_stay_within_an_image(self) -> None:
        pairs = different_objects(BOXES, 0.05)
        assert pairs.shape == (4, 3, 3)
        assert pairs.tolist() == pairs.transpose(1, 2).tolist()
        assert pairs[0].tolist() == [[False, False, True], [False, False, True], [True, True, False]]
        assert pairs.sum(dim=(1, 2)).tolist() == [4, 0, 0, 2]


class TestHardestCandidates:
    def test_the_least_similar_valid_one(self) -> None:
        queries, candidates = unit(9, 8), unit(9, 5, 8, seed=1)
        valid = torch.rand(9, 5, generator=torch.Generator().manual_seed(3)) < 0.5
        valid[:, -1] = True
        choice = hardest_candidates(queries, candidates[valid], valid)
        for row in range(9):
            similarity = {column: float(queries[row] @ candidates[row, column]) for column in range(5)}
            assert choice[row] == min((c for c in similarity if valid[row, c]), key=similarity.__getitem__)

    def test_rows_of_the_valid_candidates(self) -> None:
        valid = torch.tensor([[True, False, True], [False, True, True]])
        rows = candidate_rows(valid)
        assert rows[valid].tolist() == [0, 1, 2, 3]

    def test_no_queries(self) -> None:
        choice = hardest_candidates(unit(1, 8)[:0], unit(1, 8)[:0], torch.zeros(0, 4, dtype=torch.bool))
        assert choice.shape == (0,)
