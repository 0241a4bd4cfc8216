"""IoU, jitter and COCO's clipping, for any boxes."""

import numpy as np
import torch
from ccop_pretrain.method.boxes import box_areas, box_iou
from ccop_pretrain.method.curriculum import BoxNoise
from ccop_pretrain.method.jitter import JitterDraws, key_candidates
from ccop_pretrain.proposals.check import iou as array_iou
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou as reference

from ccop_hub.coco.boxes import clip, read_box

SIDE = 224
share = st.floats(0, 1, width=32)
magnitudes = st.floats(0, 2, width=32)


@st.composite
def boxes(draw: st.DrawFn, least: int = 0, most: int = 5) -> torch.Tensor:
    """(N, 4) float32 xyxy in a square of 224 pixels, empty ones included."""
    rows = []
    for _ in range(draw(st.integers(least, most))):
        x, y = (sorted((draw(share) * SIDE, draw(share) * SIDE)) for _ in range(2))
        rows.append([x[0], y[0], x[1], y[1]])
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


@settings(max_examples=80, deadline=None)
@given(one=boxes(), other=boxes())
def test_iou_is_symmetric_bounded_and_that_of_torchvision(one, other) -> None:
    found = box_iou(one, other)
    assert found.shape == (len(one), len(other))
    assert bool(((found >= 0) & (found <= 1 + 1e-6)).all())
    assert torch.equal(found, box_iou(other, one).T)
    whole = (box_areas(one)[:, None] > 1e-3) & (box_areas(other)[None] > 1e-3)
    assert torch.allclose(found[whole], reference(one, other)[whole], atol=1e-5)
    assert np.allclose(found[whole].numpy(), array_iou(one.numpy(), other.numpy())[whole.numpy()], atol=1e-4)
    itself = box_iou(one, one).diagonal()
    assert bool((itself[box_areas(one) > 0] == 1).all())


@settings(max_examples=80, deadline=None)
@given(given_boxes=boxes(least=1), jitters=st.integers(0, 3), centre=magnitudes, size=magnitudes, data=st.data())
def test_jittered_boxes_stay_in_the_image_and_the_box_itself_is_last(given_boxes, jitters, centre, size, data) -> None:
    count = len(given_boxes)
    values = data.draw(st.lists(share, min_size=count * jitters * 4, max_size=count * jitters * 4))
    drawn = torch.tensor(values, dtype=torch.float32).reshape(2, count, jitters, 2).clamp_max(1 - 2**-24)
    noise = BoxNoise(centre_magnitude=centre, size_magnitude=size, iou_threshold=0.5)
    found = key_candidates(given_boxes, JitterDraws(drawn[0], drawn[1]), noise, (SIDE, SIDE))
    assert found.boxes.shape == (count, jitters + 1, 4)
    assert bool(((found.boxes >= 0) & (found.boxes <= SIDE)).all())
    assert bool((found.boxes[..., 2:] >= found.boxes[..., :2]).all())
    assert torch.equal(found.boxes[:, -1], given_boxes)
    assert bool(found.valid[:, -1].all())
    assert torch.equal(found.valid[:, :-1], (found.iou >= 0.5)[:, :-1])
    if centre == 0 and size == 0:
        assert torch.allclose(found.boxes, given_boxes[:, None], atol=1e-4)


number = st.floats(-500, 500, width=32)
length = st.floats(0.5, 500, width=32)


@settings(max_examples=100, deadline=None)
@given(x=number, y=number, width=length, height=length, size=st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_a_coco_box_is_clipped_to_its_image_once_and_for_all(x, y, width, height, size) -> None:
    met: list[object] = []
    box = read_box([x, y, width, height], size, met)
    if box is None:
        assert x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0
        return
    clipped = clip(*box, size)
    left, top, right, bottom = clipped[0], clipped[1], clipped[0] + clipped[2], clipped[1] + clipped[3]
    assert -1e-9 <= left < right <= size[0] + 1e-6
    assert -1e-9 <= top < bottom <= size[1] + 1e-6
    assert clipped[2] <= box[2] + 1e-6
    assert np.allclose(clip(*clipped, size), clipped)
