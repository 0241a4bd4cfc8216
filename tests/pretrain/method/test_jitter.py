import math

import pytest
import torch
from ccop_pretrain.method.curriculum import BoxNoise
from ccop_pretrain.method.jitter import JitterDraws, draw_jitters, jitter_boxes, key_candidates
from torch.testing import assert_close


def noise(threshold: float = 0.5, centre: float = 0.5, size: float = 1.0) -> BoxNoise:
    return BoxNoise(torch.tensor(threshold), torch.tensor(centre), torch.tensor(size))


BOXES = torch.tensor([[20.0, 30, 60, 50], [100, 10, 180, 100]])


def test_draws_come_image_by_image_centres_before_sizes() -> None:
    torch.manual_seed(5)
    draws = draw_jitters([2, 0, 1], jitters=3)
    torch.manual_seed(5)
    first = torch.rand(2, 3, 2), torch.rand(2, 3, 2)
    last = torch.rand(1, 3, 2), torch.rand(1, 3, 2)
    assert_close(draws.centre, torch.cat([first[0], last[0]]), rtol=0, atol=0)
    assert_close(draws.size, torch.cat([first[1], last[1]]), rtol=0, atol=0)


def test_no_images_draw_nothing() -> None:
    assert draw_jitters([], 3).centre.shape == (0, 3, 2)


def test_each_jitter_is_the_formula() -> None:
    torch.manual_seed(0)
    draws = draw_jitters([2], jitters=4)
    found = jitter_boxes(BOXES, draws, noise(centre=0.3, size=0.7), (120, 200))
    for i, (x0, y0, x1, y1) in enumerate(BOXES.tolist()):
        for j in range(4):
            centre, size = draws.centre[i, j].tolist(), draws.size[i, j].tolist()
            x = (x0 + x1) / 2 + (x1 - x0) * (centre[0] - 0.5) * 0.3
            y = (y0 + y1) / 2 + (y1 - y0) * (centre[1] - 0.5) * 0.3
            w = (x1 - x0) * math.exp((size[0] - 0.5) * 0.7)
            h = (y1 - y0) * math.exp((size[1] - 0.5) * 0.7)
            expected = [max(x - w / 2, 0), max(y - h / 2, 0), min(x + w / 2, 200), min(y + h / 2, 120)]
            assert found[i, j].tolist() == pytest.approx(expected, rel=1e-5)


def test_middle_draws_leave_a_box_where_it_is() -> None:
    half = torch.full((2, 1, 2), 0.5)
    found = jitter_boxes(BOXES, JitterDraws(half, half), noise(), (200, 200))
    assert_close(found[:, 0], BOXES)


def test_the_last_candidate_is_the_box_itself_and_always_valid() -> None:
    torch.manual_seed(1)
    found = key_candidates(BOXES, draw_jitters([2], 5), noise(threshold=1.1), (200, 200))
    assert_close(found.boxes[:, -1], BOXES, rtol=0, atol=0)
    assert found.valid.tolist() == [[False] * 5 + [True]] * 2


def test_valid_means_the_threshold_is_reached() -> None:
    torch.manual_seed(1)
    found = key_candidates(BOXES, draw_jitters([2], 200), noise(threshold=0.6, centre=0.6, size=1.4), (200, 200))
    assert found.valid[:, :-1].tolist() == (found.iou[:, :-1] >= 0.6).tolist()
    assert 0 < found.valid[:, :-1].float().mean() < 1


def test_no_jitters_and_no_boxes() -> None:
    assert key_candidates(BOXES, draw_jitters([2], 0), noise(), (200, 200)).boxes.shape == (2, 1, 4)
    assert key_candidates(BOXES[:0], draw_jitters([0, 0], 3), noise(), (200, 200)).boxes.shape == (0, 4, 4)
