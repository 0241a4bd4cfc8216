from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ccop_eval.detection import config
from ccop_eval.detection.coco_data import CocoData, open_coco
from ccop_eval.detection.engine import load_engine

from ccop_hub.errors import UserError
from ccop_hub.normalization import INPUT_FACTS

load_engine()

COMMON = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.MASK_ON": True,
    "MODEL.WEIGHTS": "",
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.NESTEROV": False,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.WARMUP_ITERS": 1000,
    "SOLVER.WARMUP_FACTOR": 1e-3,
    "SOLVER.GAMMA": 0.1,
    "INPUT.MIN_SIZE_TRAIN": (640, 672, 704, 736, 768, 800),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.FORMAT": "RGB",
    "TEST.PRECISE_BN.ENABLED": True,
    "TEST.PRECISE_BN.NUM_ITER": 200,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}

FPN = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.NORM": "SyncBN",
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
}

LENGTH_1X = {"SOLVER.MAX_ITER": 90_000, "SOLVER.STEPS": (60_000, 80_000)}

PUBLISHED: dict[str, dict[str, Any]] = {
    "coco-fpn-4conv1fc-1x": {
        **COMMON,
        **FPN,
        **LENGTH_1X,
        "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
        "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
        "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
        "MODEL.ROI_BOX_HEAD.NORM": "SyncBN",
        "MODEL.ROI_MASK_HEAD.NORM": "SyncBN",
        "SOLVER.AMP.ENABLED": True,
    },
}


def _value(cfg: Any, path: str) -> Any:
    for name in path.split("."):
        cfg = cfg[name]
    return cfg


@pytest.fixture
def data(draw: Callable[..., Path], tmp_path: Path) -> CocoData:
    return open_coco(draw(tmp_path / "shapes", train=1, val=1))


def _configure(data: CocoData, protocol: str = "coco-fpn-4conv1fc-1x", **changes: Any) -> config.Configuration:
    options = {"arch": "resnet50", "input_facts": INPUT_FACTS, "device": "cpu", "processes": 1, **changes}
    return config.configure(protocol, data=data, **options)


@pytest.mark.parametrize(("protocol", "key"), [(name, key) for name, values in PUBLISHED.items() for key in values])
def test_published_value(protocol: str, key: str) -> None:
    assert _value(config.load_protocol(protocol), key) == PUBLISHED[protocol][key]


def test_every_protocol_can_be_read_and_bases_are_not_protocols() -> None:
    assert {"coco-fpn-4conv1fc-1x", "small-cpu"} <= set(config.protocol_ids())
    for protocol in config.protocol_ids():
        assert not protocol.startswith("_")
        assert config.load_protocol(protocol).MODEL.BACKBONE.FREEZE_AT == 0


def test_an_unknown_protocol_is_told_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no protocol 'coco'.*coco-fpn-4conv1fc-1x"):
        config.load_protocol("coco")


def test_one_process_has_bn_and_says_so(data: CocoData) -> None:
    configuration = _configure(data)
    assert [_value(configuration.cfg, f"{path}.NORM") for path in config._NORMS] == ["BN"] * 4
    assert "SyncBN became BN: there is one process" in configuration.notes


def test_several_gpus_keep_syncbn_and_mixed_precision(data: CocoData) -> None:
    configuration = _configure(data, device="cuda", processes=8)
    assert [_value(configuration.cfg, f"{path}.NORM") for path in config._NORMS] == ["SyncBN"] * 4
    assert configuration.cfg.SOLVER.AMP.ENABLED
    assert configuration.notes == []


def test_the_cpu_trains_in_float32_and_says_so(data: CocoData) -> None:
    configuration = _configure(data)
    assert not configuration.cfg.SOLVER.AMP.ENABLED
    assert "trained in float32: mixed precision needs a GPU" in configuration.notes


@pytest.mark.parametrize(
    ("arch", "depth", "channels"), [("resnet18", 18, 64), ("resnet34", 34, 64), ("resnet101", 101, 256)]
)
def test_depth_and_width_follow_the_architecture(data: CocoData, arch: str, depth: int, channels: int) -> None:
    resnets = _configure(data, arch=arch).cfg.MODEL.RESNETS
    built = [resnets.DEPTH, resnets.RES2_OUT_CHANNELS]
    assert built == [depth, channels]


def test_an_architecture_that_the_engine_lacks_is_told(data: CocoData) -> None:
    with pytest.raises(UserError, match="no backbone that fits resnet50d"):
        _configure(data, arch="resnet50d")


def test_input_follows_the_checkpoint(data: CocoData) -> None:
    facts = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 1.0], "channel_order": "BGR", "range": "0-1"}
    cfg = _configure(data, input_facts=facts).cfg
    assert cfg.INPUT.FORMAT == "BGR"
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    assert mean == pytest.approx([25.5, 51.0, 76.5])
    assert std == pytest.approx([127.5, 127.5, 255.0])
    model = _configure(data).cfg.MODEL
    mean, std = model.PIXEL_MEAN, model.PIXEL_STD
    assert mean == [123.675, 116.28, 103.53]
    assert std == [58.395, 57.12, 57.375]


def test_input_facts_without_sense_are_refused(data: CocoData) -> None:
    with pytest.raises(UserError, match="an input that makes no sense"):
        _configure(data, input_facts={"channel_order": "HSV"})


def test_classes_and_masks_follow_the_data(data: CocoData) -> None:
    cfg = _configure(data).cfg
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
    assert cfg.INPUT.MASK_FORMAT == "polygon"
    train, test = cfg.DATASETS.TRAIN, cfg.DATASETS.TEST
    assert (train, test) == ((data.train.name,), (data.val.name,))


def test_a_smaller_batch_follows_the_linear_rule(data: CocoData) -> None:
    configuration = _configure(data)
    config.set_batch_size(configuration, 4, 1)
    solver = configuration.cfg.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR) == (4, 0.005)
    assert (solver.MAX_ITER, solver.STEPS, solver.WARMUP_ITERS) == (360_000, (240_000, 320_000), 4000)
    assert any("batch 4, lr 0.005, 360000 iterations" in note for note in configuration.notes)


def test_the_protocols_own_batch_and_length_change_nothing(data: CocoData) -> None:
    configuration = _configure(data, device="cuda", processes=8)
    before = configuration.cfg.dump()
    config.set_batch_size(configuration, 16, 8)
    config.set_iterations(configuration, 90_000)
    assert configuration.cfg.dump() == before
    assert configuration.notes == []


def test_a_shorter_run_keeps_the_shape_of_the_schedule(data: CocoData) -> None:
    configuration = _configure(data)
    config.set_iterations(configuration, 900)
    solver = configuration.cfg.SOLVER
    assert (solver.MAX_ITER, solver.STEPS, solver.WARMUP_ITERS) == (900, (600, 800), 10)
    assert any("900 iterations instead of 90000" in note for note in configuration.notes)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_a_very_short_run_has_a_schedule_that_the_engine_takes(data: CocoData, iterations: int) -> None:
    import torch
    from detectron2.solver import build_lr_scheduler

    configuration = _configure(data)
    config.set_iterations(configuration, iterations)
    steps = configuration.cfg.SOLVER.STEPS
    assert all(0 < step < iterations for step in steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    assert build_lr_scheduler(configuration.cfg, optimizer).get_last_lr()[0] > 0
