"""Detectron2 configuration of a protocol: our YAML merged into `get_cfg()`, adapted to weights, data and machine.

Every departure from the protocol appears in the run's protocol id or as a note in its result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ccop_hub.architectures import HUB_ARCHITECTURES
from ccop_hub.errors import UserError
from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD

from ..settings import DETECTION_PROTOCOLS
from .average_precision import Scorer
from .coco_data import CocoData, register

PROTOCOLS = Path(__file__).with_name("protocols")
"""Folder of the protocols' `ID.yaml` files; those with a leading underscore are shared bases."""

NARROW_RESNETS = (18, 34)
"""ResNet depths whose first stage has 64 channels (He et al. 2016, table 1)."""

SCORERS: dict[str, Scorer] = {"voc-c4-24k": "voc"}
"""Protocols that do not use COCO's AP."""

_NORMS = ("MODEL.RESNETS", "MODEL.FPN", "MODEL.ROI_BOX_HEAD", "MODEL.ROI_MASK_HEAD")


@dataclasses.dataclass
class Configuration:
    """A Detectron2 configuration and how it departs from its protocol.

    Attributes:
        cfg: the `detectron2.config.CfgNode`.
        notes: departures from the protocol, one sentence each.
        changed: settings that differ from the protocol; they become part of the protocol id.
        scorer: the AP metric.
        reference_processes: number of processes that the protocol's batch size assumes; 0 if unspecified.
    """

    cfg: Any
    notes: list[str] = dataclasses.field(default_factory=list)
    changed: dict[str, Any] = dataclasses.field(default_factory=dict)
    scorer: Scorer = "coco"
    reference_processes: int = 0


def protocol_ids() -> list[str]:
    """The ids that `--protocol` accepts."""
    return list(DETECTION_PROTOCOLS)


def load_protocol(protocol: str) -> Any:
    """Load a protocol's `CfgNode`: its YAML file merged into Detectron2's defaults.

    Raises:
        UserError: the id is unknown.
    """
    from detectron2.config import get_cfg

    if protocol not in protocol_ids():
        raise UserError(f"no protocol {protocol!r}: use one of {', '.join(protocol_ids())}")
    # Registers the region heads that the C4 protocols use.
    from . import c4_heads  # noqa: F401

    cfg = get_cfg()
    cfg.merge_from_file(str(PROTOCOLS / f"{protocol}.yaml"))
    return cfg


def configure(
    protocol: str, *, arch: str, input_facts: Mapping[str, Any], data: CocoData, device: str, processes: int = 1
) -> Configuration:
    """Adapt a protocol to an architecture, the weights' input format, a data set and the machine.

    Args:
        protocol: protocol id.
        arch: timm name of the backbone; a C4 detector needs one of `HUB_ARCHITECTURES`.
        input_facts: the checkpoint's `input` facts: per-channel mean and std, channel_order (RGB or BGR), range
            ("0-255" or "0-1"); missing ones default to the hub's.
        data: the data set; both splits are registered with Detectron2.
        device: "cuda" or "cpu".
        processes: number of training processes, one per GPU.

    Raises:
        UserError: the detector does not support the architecture, or the input facts are invalid.
    """
    configuration = Configuration(load_protocol(protocol), scorer=SCORERS.get(protocol, "coco"))
    cfg = configuration.cfg
    configuration.reference_processes = cfg.SOLVER.REFERENCE_WORLD_SIZE
    # Otherwise Detectron2 would rescale the schedule by itself, without a note in the result.
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 0
    _set_backbone(cfg, protocol, arch)
    _set_input(cfg, input_facts)
    _set_data(configuration, data)
    _set_machine(configuration, device, processes)
    return configuration


def _set_backbone(cfg: Any, protocol: str, arch: str) -> None:
    """Use Detectron2's own ResNet where it has one, and timm's network below its pyramid otherwise."""
    from detectron2.config import CfgNode

    if arch in HUB_ARCHITECTURES:
        cfg.MODEL.RESNETS.DEPTH = int(arch.removeprefix("resnet"))
        if cfg.MODEL.RESNETS.DEPTH in NARROW_RESNETS:
            cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
        return
    from . import timm_backbone

    if cfg.MODEL.BACKBONE.NAME != "build_resnet_fpn_backbone":
        possible = [name for name in protocol_ids() if "c4" not in name]
        raise UserError(
            f"the C4 detector of {protocol} has no backbone for {arch}: use weights of {', '.join(HUB_ARCHITECTURES)}, "
            f"or a --protocol with a feature pyramid ({', '.join(possible)})"
        )
    cfg.MODEL.BACKBONE.NAME = timm_backbone.NAME
    cfg.MODEL.TIMM = CfgNode({"ARCH": arch})


def scale_schedule(cfg: Any, factor: float) -> None:
    """Multiply all iteration counts (length, steps, warm-up, checkpoint and evaluation periods) by `factor`.

    In a very short run, steps that coincide with each other or with the start or end are dropped.
    """
    solver = cfg.SOLVER
    solver.MAX_ITER = max(1, round(solver.MAX_ITER * factor))
    scaled = {round(step * factor) for step in solver.STEPS}
    solver.STEPS = tuple(sorted(step for step in scaled if 0 < step < solver.MAX_ITER))
    solver.WARMUP_ITERS = round(solver.WARMUP_ITERS * factor)
    solver.CHECKPOINT_PERIOD = max(1, round(solver.CHECKPOINT_PERIOD * factor))
    cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD * factor)


def set_batch_size(configuration: Configuration, batch_size: int | None, processes: int) -> None:
    """Change the batch size by the linear scaling rule (Goyal et al. 2017): lr scales with it, iterations inversely.

    Args:
        configuration: the protocol's configuration, changed in place.
        batch_size: images per step over all processes; None keeps the protocol's images per process, capped at its
            total batch size.
        processes: number of training processes.

    Raises:
        UserError: the batch does not divide evenly among the processes.
    """
    solver = configuration.cfg.SOLVER
    if batch_size is None:
        reference = configuration.reference_processes or processes
        batch_size = min(solver.IMS_PER_BATCH, solver.IMS_PER_BATCH // reference * processes)
    if batch_size % processes:
        raise UserError(f"{processes} processes cannot share a batch of {batch_size} evenly: use another --batch-size")
    factor = batch_size / solver.IMS_PER_BATCH
    if factor == 1:
        return
    configuration.changed["batch_size"] = batch_size
    before = f"batch {solver.IMS_PER_BATCH}, lr {solver.BASE_LR:g}, {solver.MAX_ITER} iterations"
    solver.IMS_PER_BATCH = batch_size
    solver.BASE_LR *= factor
    scale_schedule(configuration.cfg, 1 / factor)
    configuration.notes.append(
        f"rescaled by the linear rule: batch {batch_size}, lr {solver.BASE_LR:g}, {solver.MAX_ITER} iterations, steps "
        f"{list(solver.STEPS)}, warm-up {solver.WARMUP_ITERS} (the protocol: {before})"
    )


def set_iterations(configuration: Configuration, iterations: int) -> None:
    """Change the schedule's length; steps and warm-up scale with it."""
    solver = configuration.cfg.SOLVER
    if iterations == solver.MAX_ITER:
        return
    configuration.changed["iterations"] = iterations
    before = solver.MAX_ITER
    scale_schedule(configuration.cfg, iterations / before)
    configuration.notes.append(
        f"{iterations} iterations instead of {before}: steps {list(solver.STEPS)}, warm-up {solver.WARMUP_ITERS}"
    )


def set_precision(configuration: Configuration, precision: Literal["float32", "fp16"]) -> None:
    """Override the protocol's precision; Detectron2's mixed precision is autocast to float16."""
    amp = configuration.cfg.SOLVER.AMP
    if (precision == "fp16") == amp.ENABLED:
        return
    amp.ENABLED = precision == "fp16"
    configuration.changed["precision"] = precision
    configuration.notes.append(f"trained in {'mixed precision' if amp.ENABLED else 'float32'}, unlike the protocol")


def _set_input(cfg: Any, facts: Mapping[str, Any]) -> None:
    """Set channel order, mean and std to the checkpoint's, on Detectron2's 0-255 scale."""
    mean, std = list(facts.get("mean", PIXEL_MEAN)), list(facts.get("std", PIXEL_STD))
    order, values = facts.get("channel_order", "RGB"), facts.get("range", "0-255")
    if order not in ("RGB", "BGR") or values not in ("0-255", "0-1") or not len(mean) == len(std) == 3:
        raise UserError(f"the checkpoint's metadata describes an invalid input: {dict(facts)}; export it again")
    scale = 255.0 if values == "0-1" else 1.0
    cfg.INPUT.FORMAT = order
    cfg.MODEL.PIXEL_MEAN = [float(value) * scale for value in mean]
    cfg.MODEL.PIXEL_STD = [float(value) * scale for value in std]


def _set_data(configuration: Configuration, data: CocoData) -> None:
    cfg = configuration.cfg
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (register(data.train),), (register(data.val),)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(data.class_names)
    if data.masks is not None:
        cfg.INPUT.MASK_FORMAT = data.masks
    elif cfg.MODEL.MASK_ON:
        cfg.MODEL.MASK_ON = False
        configuration.notes.append("the data set has boxes without masks: no mask head, no mask AP")


def _set_machine(configuration: Configuration, device: str, processes: int) -> None:
    cfg = configuration.cfg
    cfg.MODEL.DEVICE = device
    if processes == 1:
        replaced = [path for path in _NORMS if _node(cfg, path).NORM == "SyncBN"]
        for path in replaced:
            _node(cfg, path).NORM = "BN"
        if replaced:
            configuration.notes.append("SyncBN became BN: there is one process")
    if cfg.SOLVER.AMP.ENABLED and device == "cpu":
        cfg.SOLVER.AMP.ENABLED = False
        configuration.notes.append("trained in float32: mixed precision needs a GPU")


def _node(cfg: Any, path: str) -> Any:
    for name in path.split("."):
        cfg = cfg[name]
    return cfg
