"""`ccop-eval segmentation`: train and score a fully convolutional network on a pre-trained backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from lightning.fabric import Fabric
from torch import Tensor

from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import tensors_digest
from ccop_hub.sources.resolve import resolve

from ..common.compute import derived_seed, launch
from ..common.images import data_digest, require_regular
from ..common.run_folder import RunFolder
from ..protocols import SEGMENTATION_PROTOCOLS, SegmentationProtocol, apply_settings
from ..results.intervals import bootstrap
from ..results.result import Curve, DataIdentity, Metrics, Result, WeightsIdentity
from ..settings import SegmentationSettings
from .crops import TrainingCrops
from .dataset import LabelledImages, open_labelled_images
from .drawing import draw_crops, draw_predictions, write_predictions
from .network import Fcn16
from .scoring import matrix_statistic, per_class_iou, segmentation_metrics
from .training import Segmentation

HEAD_DRAW = 3
"""Separates the head's seed from those of order and crops."""


def run(settings: SegmentationSettings) -> Result:
    """Train and score, and write `result.json`, pictures and resumable state to `settings.out`."""
    fabric = launch(settings)
    data = open_labelled_images(settings.data, settings.ignore, settings.label_map)
    base = SEGMENTATION_PROTOCOLS[settings.protocol]
    protocol, protocol_id = apply_settings(base, settings, further=("ignore", "label_map"))
    protocol = in_iterations(protocol, len(data.train.images))
    check_batch(protocol, fabric.world_size)
    check_windows(protocol)
    with RunFolder(fabric, settings) as folder:
        return folder.finished or _carry_out(fabric, settings, data, protocol, protocol_id, folder)


def _carry_out(
    fabric: Fabric,
    settings: SegmentationSettings,
    data: LabelledImages,
    protocol: SegmentationProtocol,
    protocol_id: str,
    folder: RunFolder,
) -> Result:
    files = [*data.train.images, *data.train.labels, *data.val.images, *data.val.labels]
    require_regular(files)
    weights = resolve(settings.weights, settings.backbone, settings.seed)
    identity = DataIdentity(name=settings.data.name, digest=_digest(settings, files), images=len(data.val.images))
    network = Fcn16(
        weights,
        len(data.table.classes),
        protocol.head_dilation,
        derived_seed(settings.seed, HEAD_DRAW),
        protocol.frozen,
    )
    model = Segmentation(fabric, network, data, protocol, settings.seed, settings.workers)
    evaluate_every = settings.evaluate_every
    if evaluate_every is None:
        evaluate_every = -(-len(data.train.images) // protocol.batch_size) if protocol.epochs else 0
    model.train(
        folder,
        {"weights": weights.digest, "data": identity.digest, "protocol": protocol_id, "seed": settings.seed},
        evaluate_every,
        settings.save_every,
    )
    if protocol.frozen:
        _require_unchanged(network, weights.part("backbone"))
    matrices = model.score(data.val)
    last = segmentation_metrics(matrices.sum(0))
    model.curve.append({"step": protocol.iterations, **last})
    if folder.main:
        draw_crops(TrainingCrops(data, protocol, settings.seed, 6), data.table, folder.pictures / "training-crops.png")
        draw_predictions(model, data, folder.pictures / "predictions.png")
        if settings.save_predictions:
            write_predictions(model, data, settings.out / "predictions")
    fabric.barrier()
    return folder.finish(
        packages=("cityscapesscripts", "torchmetrics"),
        task="segmentation",
        protocol=protocol_id,
        weights=WeightsIdentity.of(weights),
        loaded="backbone",
        tensors=network.tensors,
        data=identity,
        effective_lr=protocol.lr,
        metrics=_with_best(last, model.curve),
        intervals=bootstrap(len(matrices), matrix_statistic(matrices), None, settings.seed).own,
        per_class={"IoU": per_class_iou(matrices.sum(0), data.table.classes)},
        curve=model.curve,
        details={
            "confusion": matrices.sum(0).tolist(),
            "classes": data.table.classes,
            "label ids": data.table.ids,
        },
        notes=_notes(protocol, data, model),
    )


def in_iterations(protocol: SegmentationProtocol, images: int) -> SegmentationProtocol:
    """Convert the protocol's epochs to iterations, unless it already specifies iterations."""
    if protocol.iterations:
        return dataclasses.replace(protocol, epochs=0)
    return dataclasses.replace(protocol, iterations=protocol.epochs * -(-images // protocol.batch_size))


def check_batch(protocol: SegmentationProtocol, devices: int) -> None:
    """Raise `UserError` unless the batch divides evenly among devices, with at least two crops each (for BN)."""
    if protocol.batch_size % devices or protocol.batch_size < 2 * devices:
        raise UserError(
            f"a batch of {protocol.batch_size} cannot be divided between {devices} devices: use a --batch-size that "
            "gives each the same number of crops, at least two"
        )


def check_windows(protocol: SegmentationProtocol) -> None:
    """Raise `UserError` if the test windows leave gaps without predictions."""
    if protocol.stride > protocol.crop_size:
        raise UserError(
            f"--stride {protocol.stride} is larger than --crop-size {protocol.crop_size}, so the test windows leave "
            f"gaps: use --stride {protocol.crop_size} or less, or 0"
        )


def _digest(settings: SegmentationSettings, files: list[Path]) -> str:
    names = [
        path for path in (settings.data / "classes.txt", settings.data / "semantic" / "classes.txt") if path.exists()
    ]
    return data_digest(settings.data, [*files, *names])


def _with_best(last: dict[str, float], curve: Curve) -> Metrics:
    """Final metrics, plus the best mIoU if val was also scored during training."""
    scored = [value for entry in curve if (value := entry.get("mIoU")) is not None]
    return {**last, **({"best/mIoU": max(scored)} if len(scored) > 1 else {})}


def _require_unchanged(network: Fcn16, loaded: Mapping[str, Tensor]) -> None:
    now = {key: value.cpu() for key, value in network.backbone.state_dict().items()}
    if tensors_digest(now) != tensors_digest(loaded):
        raise RuntimeError("the frozen backbone changed during training")


def _notes(protocol: SegmentationProtocol, data: LabelledImages, model: Segmentation) -> list[str]:
    notes = ["pixels are normalised on the 0-255 scale by the weights' own mean and std"]
    if not model.synchronised:
        notes.append(
            "SyncBN became BN on one process"
            if model.fabric.world_size == 1
            else "batch statistics are those of each process alone"
        )
    if protocol.frozen:
        notes.append("the backbone was frozen, in eval mode, and is bit-identical afterwards")
    if not data.cityscapes:
        notes.append("not Cityscapes: compare only with runs on the same data")
    return notes
