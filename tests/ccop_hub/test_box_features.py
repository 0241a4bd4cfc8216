from types import SimpleNamespace

import torch

from ccop_hub.box_features import assign_levels, pyramid_features, stage_features


def test_levels_are_those_of_the_paper():
    sides = torch.tensor([10.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 3000.0])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert assign_levels(boxes).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def position_maps(size, strides):
    """Feature maps in which each cell contains its centre, (x, y) in image pixels."""
    maps = {}
    for name, stride in strides.items():
        centres = (torch.arange(size // stride) + 0.5) * stride
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        maps[name] = torch.stack([x, y]).unsqueeze(0)
    return maps


def test_boxes_are_pooled_where_they_are():
    boxes = torch.tensor([[64.0, 96.0, 96.0, 160.0], [128.0, 64.0, 384.0, 320.0], [33.0, 65.0, 150.0, 190.0]])
    maps = position_maps(512, {"p2": 4, "p3": 8, "p4": 16, "p5": 32})
    network = SimpleNamespace(pyramid=lambda image: maps)
    centres = torch.stack([(boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2], dim=1)
    torch.testing.assert_close(pyramid_features(network, torch.zeros(1, 3, 512, 512), boxes), centres)
    stages = position_maps(512, {"res2": 4, "res3": 8, "res4": 16, "res5": 32})
    pooled = stage_features(SimpleNamespace(stages=lambda image: stages), torch.zeros(1, 3, 512, 512), boxes)
    torch.testing.assert_close(pooled, torch.nn.functional.normalize(centres).repeat(1, 4))
