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
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.MASK_ON": True,
    "MODEL.WEIGHTS": "",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.POSITIVE_FRACTION": 0.5,
    "MODEL.RPN.IOU_THRESHOLDS": [0.3, 0.7],
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.5],
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.0,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": True,
    "DATALOADER.ASPECT_RATIO_GROUPING": True,
    "INPUT.CROP.ENABLED": False,
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
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
}

LENGTH_1X = {"SOLVER.MAX_ITER": 90_000, "SOLVER.STEPS": (60_000, 80_000)}
LENGTH_2X = {"SOLVER.MAX_ITER": 180_000, "SOLVER.STEPS": (120_000, 160_000)}

FOUR_CONV = {
    **COMMON,
    **FPN,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.NORM": "SyncBN",
    "MODEL.ROI_MASK_HEAD.NORM": "SyncBN",
    "SOLVER.AMP.ENABLED": True,
    "SOLVER.REFERENCE_WORLD_SIZE": 8,
}

TWO_FC = {
    **COMMON,
    **FPN,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "SOLVER.AMP.ENABLED": False,
    "SOLVER.REFERENCE_WORLD_SIZE": 8,
}

C4 = {
    **COMMON,
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12_000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "Res5HeadsWithNorm",
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
    "SOLVER.AMP.ENABLED": False,
    "SOLVER.REFERENCE_WORLD_SIZE": 8,
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "coco-fpn-4conv1fc-1x": {**FOUR_CONV, **LENGTH_1X},
    "coco-fpn-4conv1fc-2x": {**FOUR_CONV, **LENGTH_2X},
    "coco-fpn-2fc-1x": {**TWO_FC, **LENGTH_1X},
    "coco-fpn-2fc-2x": {**TWO_FC, **LENGTH_2X},
    "coco-c4-1x": {**C4, **LENGTH_1X},
    "coco-c4-2x": {**C4, **LENGTH_2X},
    "voc-c4-24k": {
        **C4,
        "MODEL.MASK_ON": False,
        "INPUT.MIN_SIZE_TRAIN": (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        "SOLVER.MAX_ITER": 24_000,
        "SOLVER.STEPS": (18_000, 22_000),
        "SOLVER.WARMUP_ITERS": 100,
    },
    "cityscapes-instance-fpn-24k": {
        **TWO_FC,
        "INPUT.MIN_SIZE_TRAIN": (800, 832, 864, 896, 928, 960, 992, 1024),
        "INPUT.MAX_SIZE_TRAIN": 2048,
        "INPUT.MIN_SIZE_TEST": 1024,
        "INPUT.MAX_SIZE_TEST": 2048,
        "SOLVER.IMS_PER_BATCH": 8,
        "SOLVER.BASE_LR": 0.01,
        "SOLVER.MAX_ITER": 24_000,
        "SOLVER.STEPS": (18_000,),
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


@pytest.mark.parametrize("protocol", sorted(PUBLISHED))
def test_published_values(protocol: str) -> None:
    cfg = config.load_protocol(protocol)
    assert {key: _value(cfg, key) for key in PUBLISHED[protocol]} == PUBLISHED[protocol]


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnet101"])
@pytest.mark.parametrize("protocol", sorted(PUBLISHED))
def test_the_protocol_is_the_same_for_every_depth(data: CocoData, protocol: str, arch: str) -> None:
    """On the protocol's own hardware, only depth, width, input and classes are adapted."""
    configuration = _configure(data, protocol, arch=arch, device="cuda", processes=8)
    config.set_batch_size(configuration, None, 8)
    cfg = configuration.cfg
    # He et al. 2016, table 1: the first stage has 64 channels with 18 or 34 layers, 256 in deeper networks.
    assert int(arch.removeprefix("resnet")) == cfg.MODEL.RESNETS.DEPTH
    assert (64 if arch in ("resnet18", "resnet34") else 256) == cfg.MODEL.RESNETS.RES2_OUT_CHANNELS
    expected = {**PUBLISHED[protocol], "SOLVER.REFERENCE_WORLD_SIZE": 0}
    assert {key: _value(cfg, key) for key in expected} == expected
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53]
    assert cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
    assert (configuration.changed, configuration.notes) == ({}, [])


def test_every_protocol_can_be_read_and_bases_are_not_protocols() -> None:
    assert set(config.protocol_ids()) == {*PUBLISHED, "small-cpu"}
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


def test_an_architecture_that_the_engine_lacks_is_told(data: CocoData) -> None:
    with pytest.raises(UserError, match=r"C4 detector of coco-c4-1x has no backbone for resnet50d"):
        _configure(data, "coco-c4-1x", arch="resnet50d")
    cfg = _configure(data, "coco-fpn-2fc-1x", arch="resnet50d").cfg
    assert (cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.ARCH) == ("build_timm_fpn_backbone", "resnet50d")


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
    with pytest.raises(UserError, match="an invalid input"):
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


@pytest.mark.parametrize(
    ("protocol", "processes", "batch", "lr", "iterations", "warm_up"),
    [
        ("coco-fpn-4conv1fc-1x", 8, 16, 0.02, 90_000, 1000),
        ("coco-fpn-4conv1fc-1x", 1, 2, 0.0025, 720_000, 8000),
        ("coco-fpn-2fc-2x", 4, 8, 0.01, 360_000, 2000),
        ("coco-c4-1x", 16, 16, 0.02, 90_000, 1000),
        ("cityscapes-instance-fpn-24k", 2, 2, 0.0025, 96_000, 4000),
        ("small-cpu", 1, None, None, None, None),
    ],
)
def test_fewer_gpus_train_longer_on_smaller_batches(
    data: CocoData, protocol: str, processes: int, batch: int, lr: float, iterations: int, warm_up: int
) -> None:
    own = config.load_protocol(protocol).SOLVER
    configuration = _configure(data, protocol, processes=processes)
    config.set_batch_size(configuration, None, processes)
    solver = configuration.cfg.SOLVER
    assert (batch or own.IMS_PER_BATCH) == solver.IMS_PER_BATCH
    assert pytest.approx(lr or own.BASE_LR) == solver.BASE_LR
    assert (iterations or own.MAX_ITER, warm_up or own.WARMUP_ITERS) == (solver.MAX_ITER, solver.WARMUP_ITERS)
    assert solver.REFERENCE_WORLD_SIZE == 0, "Detectron2 must not scale once more"
    changed = solver.IMS_PER_BATCH != own.IMS_PER_BATCH
    assert configuration.changed == ({"batch_size": batch} if changed else {})
    assert any(note.startswith("rescaled by the linear rule") for note in configuration.notes) == changed


def test_a_batch_that_the_processes_cannot_share_is_told(data: CocoData) -> None:
    with pytest.raises(UserError, match="3 processes cannot share a batch of 16 evenly"):
        config.set_batch_size(_configure(data, processes=3), 16, 3)


@pytest.mark.parametrize(("arch", "channels"), [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)])
@pytest.mark.parametrize("protocol", ["coco-c4-1x", "voc-c4-24k"])
def test_res5_of_every_depth_is_the_head_with_a_norm_behind_it(
    data: CocoData, protocol: str, arch: str, channels: int
) -> None:
    from detectron2.modeling import build_model

    heads = build_model(_configure(data, protocol, arch=arch).cfg).roi_heads
    *blocks, norm = heads.res5
    assert [name for name, _ in heads.res5.named_children()] == [*(str(place) for place in range(len(blocks))), "norm"]
    assert len(blocks) == (2 if arch == "resnet18" else 3)
    assert type(norm).__name__ == "BatchNorm2d"
    assert norm.num_features == heads.box_predictor.cls_score.in_features == channels
    assert hasattr(heads, "mask_head") == (protocol == "coco-c4-1x")


@pytest.mark.parametrize("protocol", sorted(protocol for protocol in PUBLISHED if not protocol.endswith("-2x")))
def test_every_network_computes_a_loss_on_a_cpu(data: CocoData, protocol: str) -> None:
    import torch
    from detectron2.modeling import build_model
    from detectron2.structures import Boxes, Instances, PolygonMasks
    from detectron2.utils.events import EventStorage

    model = build_model(_configure(data, protocol, arch="resnet18").cfg)
    truth = Instances((96, 128))
    truth.gt_boxes, truth.gt_classes = Boxes(torch.tensor([[8.0, 8.0, 88.0, 80.0]])), torch.tensor([1])
    truth.gt_masks = PolygonMasks([[[8.0, 8.0, 88.0, 8.0, 88.0, 80.0]]])
    with EventStorage():
        losses = model([{"image": torch.zeros(3, 96, 128, dtype=torch.uint8), "instances": truth}])
    names = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
    assert set(losses) == (names if protocol == "voc-c4-24k" else {*names, "loss_mask"})
    assert all(torch.isfinite(value) for value in losses.values())


def test_voc_is_scored_by_its_own_metric(data: CocoData) -> None:
    assert {protocol: _configure(data, protocol).scorer for protocol in PUBLISHED} == {
        protocol: "voc" if protocol == "voc-c4-24k" else "coco" for protocol in PUBLISHED
    }


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
