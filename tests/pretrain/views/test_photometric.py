import dataclasses

import kornia.augmentation as kornia
import pytest
import torch
from ccop_pretrain.settings import ViewSettings
from ccop_pretrain.views.photometric import PhotometricAugmentation, PhotometricDraws, blur
from kornia.color import rgb_to_grayscale
from kornia.filters import gaussian_blur2d

from ccop_hub.errors import UserError

PAPER = ViewSettings()


def batch(n=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 24, 24), generator=generator, dtype=torch.uint8)


def test_the_draws_come_from_the_global_generator_and_differ_between_images():
    augmentation = PhotometricAugmentation(PAPER)
    torch.manual_seed(3)
    first = augmentation(batch())
    torch.manual_seed(3)
    assert torch.equal(augmentation(batch()), first)
    torch.manual_seed(4)
    assert not torch.equal(augmentation(batch()), first)
    torch.manual_seed(3)
    same = augmentation.augment(batch(1).expand(8, -1, -1, -1))
    assert len({image.sum().item() for image in same}) > 4


def test_shares_of_grey_and_of_untouched_images():
    torch.manual_seed(0)
    images = batch(400)
    augmented = PhotometricAugmentation(PAPER).augment(images)
    assert augmented.dtype == torch.float32
    assert augmented.min() >= 0
    assert augmented.max() <= 1
    grey = (augmented - augmented[:, :1]).abs().amax((1, 2, 3)) < 1e-4
    assert 0.12 < grey.float().mean() < 0.28  # p = 0.2
    untouched = (augmented - images.float() / 255).abs().amax((1, 2, 3)) < 1e-4
    assert 0.03 < untouched.float().mean() < 0.14  # 0.2 * 0.8 * 0.5 = 0.08
    local = (augmented[..., 1:] - augmented[..., :-1]).abs().mean((1, 2, 3))
    assert 0.25 < (local < 0.2).float().mean() < 0.65  # blurred with p = 0.5, mostly visibly


def test_normalisation_is_the_hubs():
    augmentation = PhotometricAugmentation(PAPER)
    augmentation.augment = lambda images: images / 255
    pixels = torch.tensor([124, 116, 104], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    out = augmentation(pixels)
    expected = torch.tensor([(124 - 123.675) / 58.395, (116 - 116.28) / 57.12, (104 - 103.53) / 57.375])
    torch.testing.assert_close(out[0, :, 0, 0], expected, atol=1e-5, rtol=0)


def test_brightness_is_added_or_multiplied():
    pixels = torch.linspace(0.3, 0.6, 48).view(1, 3, 4, 4).repeat(5, 1, 1, 1)
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0]).view(4, 1).repeat(1, 5)
    factor = neutral[0] = torch.tensor([0.6, 0.8, 1.0, 1.2, 1.4])
    never, always = torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)
    draws = PhotometricDraws(neutral, [2, 0, 3, 1], always, never, never, torch.ones(5))
    images = (pixels * 255).round().to(torch.uint8)
    pixels, factor = images / 255, factor.view(-1, 1, 1, 1)
    for name, expected in (("additive", pixels + factor - 1), ("multiplicative", pixels * factor)):
        augmentation = PhotometricAugmentation(dataclasses.replace(PAPER, colour_jitter=name))
        torch.testing.assert_close(augmentation.augment(images, draws), expected.clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_the_draws_have_the_ranges_and_shares_of_the_paper(strength):
    torch.manual_seed(0)
    draws = PhotometricAugmentation(dataclasses.replace(PAPER, jitter_strength=strength)).draw(8000)
    for drawn, centre, width in zip(draws.factors, (1, 1, 1, 0), (0.4, 0.4, 0.2, 0.1), strict=True):
        low, high = centre - width * strength, centre + width * strength
        assert low - 1e-6 <= drawn.min() < low + 0.02 * width * strength
        assert high - 0.02 * width * strength < drawn.max() <= high + 1e-6
        assert drawn.mean() == pytest.approx(centre, abs=0.05 * width * strength)  # uniform: 8 standard errors
    for chosen, share in ((draws.jittered, 0.8), (draws.grey, 0.2), (draws.blurred, 0.5)):
        assert chosen.float().mean() == pytest.approx(share, abs=0.03)
    assert 0.1 <= draws.sigma.min() < 0.12
    assert 1.98 < draws.sigma.max() <= 2
    together = torch.stack([*draws.factors, draws.jittered, draws.grey, draws.blurred, draws.sigma])
    assert (torch.corrcoef(together) - torch.eye(8)).abs().max() < 0.06  # drawn independently of each other


def test_the_order_of_the_adjustments_is_drawn():
    torch.manual_seed(0)
    augmentation = PhotometricAugmentation(PAPER)
    orders = [tuple(augmentation.draw(2).order) for _ in range(400)]
    assert len(set(orders)) == 24
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)


@pytest.mark.parametrize(
    ("name", "reference"), [("additive", kornia.ColorJiggle), ("multiplicative", kornia.ColorJitter)]
)
def test_the_result_is_that_of_kornia_with_the_same_draws(name, reference):
    torch.manual_seed(0)
    augmentation = PhotometricAugmentation(dataclasses.replace(PAPER, colour_jitter=name))
    images = batch(32)
    images[0], images[1, 1], images[2] = 77, 0, images[2, :1]  # flat, without green, grey
    for _ in range(3):
        draws = augmentation.draw(len(images))
        names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
        parameters = dict(zip(names, draws.factors, strict=True)) | {"order": torch.tensor(draws.order)}
        expected = images / 255
        steps = (
            (draws.jittered, lambda pixels, given=parameters: reference().apply_transform(pixels, given, {})),
            (draws.grey, lambda pixels: rgb_to_grayscale(pixels).expand(-1, 3, -1, -1)),
            (draws.blurred, lambda pixels, sigma=draws.sigma: gaussian_blur2d(pixels, 7, sigma[:, None].expand(-1, 2))),
        )
        for chosen, apply in steps:
            expected = torch.where(chosen.view(-1, 1, 1, 1), apply(expected), expected)
        torch.testing.assert_close(augmentation.augment(images, draws), expected, rtol=0, atol=1e-5)


def test_the_blur_has_the_kernel_that_is_asked_for():
    assert blur(PAPER) == (7, (0.1, 2.0))
    assert blur(dataclasses.replace(PAPER, blur_kernel=23)) == (23, (0.1, 2.0))
    never, always = torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    draws = PhotometricDraws(torch.ones(4, 1), [0, 1, 2, 3], never, never, always, torch.full((1,), 2.0))
    point = torch.zeros(1, 3, 24, 24, dtype=torch.uint8)
    point[..., 12, 12] = 255
    for kernel in (1, 5, 7):
        spread = PhotometricAugmentation(dataclasses.replace(PAPER, blur_kernel=kernel)).augment(point, draws)
        assert (spread[0, 0] > 0).sum() == kernel**2


@pytest.mark.parametrize(
    ("kernel", "size", "scaled"), [(7, 224, 7), (7, 448, 15), (7, 112, 3), (7, 32, 3), (23, 112, 11), (1, 448, 1)]
)
def test_a_scaled_blur_is_that_of_224_pixels(kernel, size, scaled):
    side, (low, high) = blur(ViewSettings(image_size=size, blur_kernel=kernel, scale_blur=True))
    assert abs(side - scaled) <= (2 if size > 224 else 0)
    assert side % 2 == 1
    assert (low, high) == pytest.approx((0.1 * size / 224, 2.0 * size / 224))


def test_a_blur_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"--blur-kernel 7 .* 5 or less, or --scale-blur"):
        ViewSettings(image_size=3)
    with pytest.raises(UserError, match="odd"):
        ViewSettings(blur_kernel=4)
    ViewSettings(image_size=4)
