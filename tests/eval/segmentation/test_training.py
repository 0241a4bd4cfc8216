import pytest
from ccop_eval.protocols import SEGMENTATION_PROTOCOLS
from ccop_eval.segmentation.run import in_iterations
from ccop_eval.segmentation.training import rate_factor


def test_rates_of_both_schedules():
    steps = SEGMENTATION_PROTOCOLS["cityscapes-fcn16-90k"]
    factors = [rate_factor(iteration, steps) for iteration in (0, 62_999, 63_000, 80_999, 81_000)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    poly = in_iterations(SEGMENTATION_PROTOCOLS["cityscapes-fcn16-150ep"], 2975)
    assert poly.iterations == 150 * 372
    assert rate_factor(poly.iterations // 2, poly) == pytest.approx(0.5**0.9)
