import torch
from ccop_pretrain.views.photometric import PhotometricAugmentation


def batch(n=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 24, 24), generator=generator, dtype=torch.uint8)


def test_the_draws_come_from_the_global_generator_and_differ_between_images():
    augmentation = PhotometricAugmentation()
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
    augmented = PhotometricAugmentation().augment(images)
    assert augmented.dtype == torch.float32
    assert augmented.min() >= 0
    assert augmented.max() <= 1
    grey = (augmented - augmented[:, :1]).abs().amax((1, 2, 3)) < 1e-4
    assert 0.12 < grey.float().mean() < 0.28  # p = 0.2
    untouched = (augmented - images.float() / 255).abs().amax((1, 2, 3)) < 1e-4
    assert 0.03 < untouched.float().mean() < 0.14  # 0.2 * 0.8 * 0.5 = 0.08
    local = (augmented[..., 1:] - augmented[..., :-1]).abs().mean((1, 2, 3))
    assert 0.25 < (local < 0.2).float().mean() < 0.65  # blurred with p 0.5, most of them visibly


def test_normalisation_is_the_hubs():
    augmentation = PhotometricAugmentation()
    augmentation.augmentation = torch.nn.Identity()
    pixels = torch.tensor([124, 116, 104], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    out = augmentation(pixels)
    expected = torch.tensor([(124 - 123.675) / 58.395, (116 - 116.28) / 57.12, (104 - 103.53) / 57.375])
    torch.testing.assert_close(out[0, :, 0, 0], expected, atol=1e-5, rtol=0)
