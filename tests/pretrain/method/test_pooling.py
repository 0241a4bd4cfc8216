import pytest
import torch
from ccop_pretrain.method.pooling import LEVELS, box_levels, level_sizes, pool_boxes
from torch import Tensor
from torch.testing import assert_close
from torchvision.ops import roi_align


def square(side: float) -> list[float]:
    return [0, 0, side, side]


def constant_pyramid(images: int = 1, channels: int = 2) -> dict[str, Tensor]:
    """Each level contains its own number, so that a pooled value shows which level it came from."""
    return {
        f"p{level}": torch.full((images, channels, 256 >> level, 256 >> level), float(level)) for level in range(2, 7)
    }


class TestLevels:
    SIDES = (1, 48, 48.1, 96, 96.1, 192, 192.1, 224, 224.1, 500)
    LEVELS = (2, 2, 3, 3, 4, 4, 5, 5, 5, 5)

    @pytest.mark.parametrize("image_size", [224, 112, 448])
    def test_sides_scale_with_the_image(self, image_size: int) -> None:
        boxes = torch.tensor([square(side * image_size / 224) for side in self.SIDES])
        assert (box_levels(boxes, image_size) + 2).tolist() == list(self.LEVELS)

    def test_the_area_decides(self) -> None:
        assert box_levels(torch.tensor([[0.0, 0, 200, 10]]), 224).tolist() == [0]

    def test_boxes_are_pooled_from_their_level_in_their_order(self) -> None:
        sides = [200.0, 20, 60, 100, 30]
        pooled = pool_boxes(
            constant_pyramid(2),
            [torch.tensor([square(s)]) for s in sides[:1]] + [torch.tensor([square(s) for s in sides[1:]])],
            224,
        )
        assert pooled.shape == (5, 2, 7, 7)
        assert pooled[:, 0, 3, 3].tolist() == pytest.approx([5, 2, 3, 4, 2])


class TestPooling:
    def test_boxes_belong_to_their_images(self) -> None:
        pyramid = {name: torch.rand(3, 4, 56 >> i, 56 >> i) for i, name in enumerate(("p2", "p3", "p4", "p5"))}
        boxes = [torch.tensor([[3.0, 5, 40, 30]]), torch.zeros(0, 4), torch.tensor([[50.0, 60, 90, 99], [0, 0, 9, 9]])]
        expected = [
            roi_align(pyramid["p2"], torch.tensor([[image, *box]]), 7, 0.25, aligned=True)
            for image, rows in enumerate(boxes)
            for box in rows.tolist()
        ]
        assert_close(pool_boxes(pyramid, boxes, 224), torch.cat(expected))

    def test_every_level_takes_part_in_the_gradient(self) -> None:
        pyramid = {name: level.requires_grad_() for name, level in constant_pyramid().items()}
        pool_boxes(pyramid, [torch.tensor([square(20.0)])], 224).sum().backward()
        assert pyramid["p2"].grad.abs().sum() > 0
        assert [float(pyramid[level].grad.abs().sum()) for level in ("p3", "p4", "p5")] == [0, 0, 0]

    def test_no_boxes(self) -> None:
        assert pool_boxes(constant_pyramid(2), [torch.zeros(0, 4)] * 2, 224).shape == (0, 2, 7, 7)


def torchvision_pooling(pyramid: dict[str, Tensor], boxes: list[Tensor], image_size: int) -> Tensor:
    """One call of torchvision's RoIAlign per box, from its level."""
    rows = []
    for image, group in enumerate(boxes):
        for box, level in zip(group, box_levels(group, image_size).tolist(), strict=True):
            features = pyramid[LEVELS[level]]
            roi = torch.cat([torch.tensor([float(image)]), box]).unsqueeze(0).to(features)
            rows.append(roi_align(features, roi, 7, 1 / (4 << level), aligned=True))
    return torch.cat(rows)


def random_boxes(count: int, size: int, beyond: int = 0) -> Tensor:
    """Boxes of all levels; with `beyond`, some reach that many pixels out of the image."""
    centres, sides = torch.rand(count, 2) * size, torch.exp(torch.randn(count, 2)) * size / 6
    return torch.cat([centres - sides / 2, centres + sides / 2], 1).clamp(-beyond, size + beyond)


class TestAgainstTorchvision:
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize(("size", "beyond"), [(224, 0), (224, 40), (100, 0), (33, 0)])
    def test_values_and_gradients_in_float64(self, size: int, beyond: int, layout: torch.memory_format) -> None:
        torch.manual_seed(0)
        pyramid = {
            name: torch.randn(3, 4, *cells, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
            for name, cells in zip(LEVELS, level_sizes(size, size), strict=True)
        }
        boxes = [random_boxes(12, size, beyond), torch.zeros(0, 4), random_boxes(20, size, beyond)]
        boxes[0][0] = torch.tensor([5.0, 5, 5, 9])  # empty
        expected, pooled = torchvision_pooling(pyramid, boxes, size), pool_boxes(pyramid, boxes, size)
        assert_close(pooled, expected, rtol=1e-12, atol=1e-12)
        direction = torch.randn_like(expected)
        gradients = [
            torch.autograd.grad(each, list(pyramid.values()), direction, materialize_grads=True)
            for each in (pooled, expected)
        ]
        for mine, theirs in zip(*gradients, strict=True):
            assert_close(mine, theirs, rtol=1e-12, atol=1e-12)

    def test_bfloat16_is_read_as_it_is_and_differs_by_its_rounding(self) -> None:
        """Weights are rounded once, by at most 2^-9 of their value; on a CPU, sums are not."""
        torch.manual_seed(0)
        low = {
            name: torch.rand(2, 8, *cells).bfloat16() for name, cells in zip(LEVELS, level_sizes(224, 224), strict=True)
        }
        boxes = [random_boxes(20, 224), random_boxes(20, 224)]
        pooled = pool_boxes(low, boxes, 224)
        exact = pool_boxes({name: level.double() for name, level in low.items()}, boxes, 224)
        assert_close(pooled.double(), exact, rtol=2**-9 + 1e-5, atol=0)


def test_the_gradient_of_a_single_image_is_one_that_batch_norm_reads_right() -> None:
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(4).double()
    images = torch.randn(1, 4, 56, 56, dtype=torch.float64, requires_grad=True)
    coarser = {"p3": torch.randn(1, 4, 28, 28), "p4": torch.randn(1, 4, 14, 14), "p5": torch.randn(1, 4, 7, 7)}
    coarser = {name: level.double() for name, level in coarser.items()}
    boxes, gradients = [torch.tensor([[10.0, 20, 40, 60], [0, 0, 30, 30]])], []
    for pool in (pool_boxes, torchvision_pooling):
        pooled = pool({"p2": norm(images), **coarser}, boxes, 224)
        gradients.append(torch.autograd.grad((pooled**2).sum(), images)[0])
    assert_close(*gradients, rtol=1e-10, atol=1e-12)
