import pytest
import torch
from ccop_pretrain.method.curriculum import Curriculum


def values(curriculum: Curriculum, step: int) -> list[float]:
    noise = curriculum.noise(torch.tensor(step))
    return [float(noise.iou_threshold), float(noise.centre_magnitude), float(noise.size_magnitude)]


def test_linear_between_the_ends_and_constant_beyond() -> None:
    curriculum = Curriculum((0.8, 0.4), (0.15, 0.6), (0.35, 1.4), total_steps=200)
    assert values(curriculum, 100) == pytest.approx([0.6, 0.375, 0.875])
    assert values(curriculum, 200) == pytest.approx([0.4, 0.6, 1.4])
    assert values(curriculum, 10_000) == values(curriculum, 200)
    assert values(curriculum, -5) == values(curriculum, 0) == pytest.approx([0.8, 0.15, 0.35])


def test_equal_ends_are_fixed_noise() -> None:
    curriculum = Curriculum((0.5, 0.5), (0.3, 0.3), (1.0, 1.0), total_steps=10)
    assert values(curriculum, 1) == values(curriculum, 10) == pytest.approx([0.5, 0.3, 1.0])


def test_no_steps_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Curriculum((0.8, 0.4), (0.15, 0.6), (0.35, 1.4), total_steps=0)
