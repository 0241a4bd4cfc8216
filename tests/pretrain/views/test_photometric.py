import dataclasses

import pytest
import torch
from ccop_pretrain.settings import ViewSettings
from ccop_pretrain.views.photometric import PhotometricAugmentation, blur

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
    augmentation.augmentation = torch.nn.Identity()
    pixels = torch.tensor([124, 116, 104], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    out = augmentation(pixels)
    expected = torch.tensor([(124 - 123.675) / 58.395, (116 - 116.28) / 57.12, (104 - 103.53) / 57.375])
    torch.testing.assert_close(out[0, :, 0, 0], expected, atol=1e-5, rtol=0)


def jittered(pixels, **changes):
    """Images changed only by colour jitter, and in which only brightness changes."""
    augmentation = PhotometricAugmentation(dataclasses.replace(PAPER, **changes))
    jitter = augmentation.augmentation[0]
    jitter.p = 1.0
    params = jitter.generate_parameters(pixels.shape)
    neutral = {"contrast_factor": 1.0, "saturation_factor": 1.0, "hue_factor": 0.0}
    params |= {name: torch.full_like(params[name], value) for name, value in neutral.items()}
    return jitter.apply_transform(pixels, params, jitter.flags), params["brightness_factor"].view(-1, 1, 1, 1)


def test_brightness_is_added_or_multiplied():
    torch.manual_seed(0)
    pixels = torch.linspace(0.3, 0.6, 12).view(1, 3, 2, 2).repeat(5, 1, 1, 1)
    added, factor = jittered(pixels)
    torch.testing.assert_close(added, (pixels + factor - 1).clamp(0, 1), atol=1e-5, rtol=0)
    multiplied, factor = jittered(pixels, colour_jitter="multiplicative")
    torch.testing.assert_close(multiplied, (pixels * factor).clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_the_strength_widens_every_range_of_the_jitter(strength):
    torch.manual_seed(0)
    augmentation = PhotometricAugmentation(dataclasses.replace(PAPER, jitter_strength=strength))
    drawn = augmentation.augmentation[0].generate_parameters((4000, 3, 8, 8))
    for name, centre, width in (
        ("brightness_factor", 1, 0.4),
        ("contrast_factor", 1, 0.4),
        ("saturation_factor", 1, 0.2),
        ("hue_factor", 0, 0.1),
    ):
        distance = (drawn[name] - centre).abs().max().item()
        assert 0.98 * width * strength < distance <= width * strength + 1e-6, name


def test_the_blur_has_the_kernel_that_is_asked_for():
    assert blur(PAPER) == (7, (0.1, 2.0))
    assert blur(dataclasses.replace(PAPER, blur_kernel=23)) == (23, (0.1, 2.0))
    assert PhotometricAugmentation(dataclasses.replace(PAPER, blur_kernel=5)).augmentation[2].flags["kernel_size"] == (
        5,
        5,
    )


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
