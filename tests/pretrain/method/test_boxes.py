import torch
import torchvision
from ccop_pretrain.method.boxes import box_areas, box_iou
from torch.testing import assert_close


def random_boxes(*shape: int) -> torch.Tensor:
    corners = torch.rand(*shape, 2, 2, generator=torch.Generator().manual_seed(0)) * 100
    return torch.cat([corners.amin(-2), corners.amax(-2)], -1)


def test_areas_are_torchvisions_and_an_inverted_box_has_none() -> None:
    boxes = random_boxes(50)
    assert_close(box_areas(boxes), torchvision.ops.box_area(boxes))
    assert box_areas(torch.tensor([[10.0, 0, 0, 10]])).tolist() == [0]


def test_iou_is_torchvisions_for_each_image_of_a_batch() -> None:
    boxes, others = random_boxes(3, 7), random_boxes(3, 5) + 10
    iou = box_iou(boxes, others)
    assert iou.shape == (3, 7, 5)
    for image in range(3):
        assert_close(iou[image], torchvision.ops.box_iou(boxes[image], others[image]))


def test_empty_boxes_overlap_nothing() -> None:
    nothing = torch.zeros(2, 4)
    assert box_iou(nothing, nothing).tolist() == [[0, 0], [0, 0]]


def test_geometry_is_float32_whatever_comes_in() -> None:
    assert box_iou(random_boxes(4).double(), random_boxes(4).half()).dtype == torch.float32
