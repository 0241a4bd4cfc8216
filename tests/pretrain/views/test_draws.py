import threading

import pytest
import torch
from ccop_pretrain.common.seeding import seeded_cpu
from ccop_pretrain.settings import ViewSettings
from ccop_pretrain.views.draws import Crop, ViewDraws, draw_views
from torchvision.transforms import RandomResizedCrop

SIZES = [(480, 360), (360, 480), (2048, 1024), (50, 3), (7, 900), (1, 1)]


def drawn_by_torchvision(size, seed, settings):
    width, height = size
    canvas = torch.empty((1, height, width), device="meta")
    with seeded_cpu(seed):
        first, second, swap = torch.rand(3, dtype=torch.float64).tolist()
        area, ratio = list(settings.crop_area), list(settings.crop_ratio)
        crops = [Crop(*RandomResizedCrop.get_params(canvas, area, ratio)) for _ in range(2 * settings.crop_tries)]
    return ViewDraws((crops[: settings.crop_tries], crops[settings.crop_tries :]), (first, second), swap)


@pytest.mark.parametrize("area", [(0.1, 1.0), (0.5, 0.5), (0.99, 1.0), (0.0001, 0.01)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (1.0, 1.0), (0.2, 5.0), (2.5, 3.0)])
def test_the_draws_are_those_of_torchvision_in_the_same_order(area, ratio):
    settings = ViewSettings(crop_tries=3, crop_area=area, crop_ratio=ratio)
    for place, size in enumerate(SIZES):
        for seed in (0, 2**62 + 3 + place, 10**9 + place):
            assert draw_views(size, seed, settings) == drawn_by_torchvision(size, seed, settings)


def test_threads_do_not_disturb_each_other():
    settings = ViewSettings()
    expected = [draw_views((480, 360), seed, settings) for seed in range(40)]
    found = {}

    def draw(seeds):
        for seed in seeds:
            found[seed] = draw_views((480, 360), seed, settings)

    threads = [threading.Thread(target=draw, args=(range(start, 40, 4),)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(40)] == expected
