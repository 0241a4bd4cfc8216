import numpy as np
import pytest

from ccop_hub.synthetic.textures import _PATTERNS, fractal_noise, palette, texture


def test_textures_are_colours_in_range_and_vary() -> None:
    seen = [texture(np.random.default_rng(seed), 40, 60, 12.0) for seed in range(24)]
    for image in seen:
        assert image.shape == (40, 60, 3)
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
        assert image.std(axis=(0, 1)).max() > 0.01
    means = np.array([image.mean(axis=(0, 1)) for image in seen])
    assert means.std(axis=0).min() > 0.05


@pytest.mark.parametrize("pattern", _PATTERNS, ids=lambda pattern: pattern.__name__)
def test_patterns_stay_between_0_and_1(pattern: object) -> None:
    for seed in range(3):
        field = pattern(np.random.default_rng(seed), 30, 50, 9.0)
        assert field.shape == (30, 50)
        assert 0 <= field.min() < field.max() <= 1
        np.testing.assert_array_equal(field, pattern(np.random.default_rng(seed), 30, 50, 9.0))


def test_noise_is_smoother_at_a_longer_period() -> None:
    def roughness(period: float) -> float:
        field = fractal_noise(np.random.default_rng(0), 80, 80, period, octaves=1)
        return float(np.abs(np.diff(field, axis=1)).mean())

    assert roughness(40) < 0.5 * roughness(5)


def test_palettes_run_between_dark_and_light() -> None:
    for seed in range(10):
        colours = palette(np.random.default_rng(seed))
        assert colours.shape == (3, 3)
        assert abs(float(colours[0].mean() - colours[-1].mean())) > 0.05
