"""`ccop-eval visualize`: draw feature maps and similarity to a box, for one or more weights."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from matplotlib import colormaps
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from ccop_hub.architectures import PYRAMID_STRIDES
from ccop_hub.box_features import padded, pool_boxes
from ccop_hub.errors import UserError
from ccop_hub.files import check_folder, make_folder
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.frozen_network import FrozenNetwork
from ccop_hub.images import read_header
from ccop_hub.locks import folder_lock
from ccop_hub.progress import tracked
from ccop_hub.saved_settings import save_settings
from ccop_hub.sources.resolve import resolve

from .common import pictures
from .common.environment import hardware, versions
from .common.images import data_digest, list_images, read_rgb
from .common.run_folder import SETTINGS_FILE, lightning_engine, require_same
from .frozen.features import require_finite
from .results.result import RESULT_FILE, DataIdentity, Result, WeightsIdentity
from .settings import VisualizeSettings

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in absolute pixels."""

LEVELS = {"p2": "res2", "p3": "res3", "p4": "res4", "p5": "res5"}
"""Pyramid levels, and the backbone stages of the same strides."""

_TILE = (240, 180)


@dataclass(frozen=True)
class ColourBasis:
    """Maps features to colours, by three directions in feature space and the value range along each.

    Attributes:
        mean: (C,) mean feature.
        axes: (3, C) principal directions; the largest entry of each is positive.
        low: (3,) 1st percentile along each direction.
        high: (3,) 99th percentile along each direction.
        explained: variance explained by the three directions, in percent.
    """

    mean: np.ndarray
    axes: np.ndarray
    low: np.ndarray
    high: np.ndarray
    explained: float

    def paint(self, features: np.ndarray) -> np.ndarray:
        """Colour features: (C, h, w) -> (h, w, 3) uint8 RGB."""
        along = np.tensordot(features - self.mean[:, None, None], self.axes, axes=([0], [1]))
        unit = (along - self.low) / np.maximum(self.high - self.low, 1e-12)
        colours: np.ndarray = (unit.clip(0, 1) * 255).round().astype(np.uint8)
        return colours


def colour_basis(maps: Sequence[np.ndarray]) -> ColourBasis:
    """Compute principal components over all cells of all maps, so that colours are comparable across images.

    Args:
        maps: (C, h, w) float arrays, all from one level of one network.
    """
    cells = np.concatenate([features.reshape(len(features), -1).T for features in maps]).astype(np.float64)
    mean = cells.mean(0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov((cells - mean).T, bias=True)))
    axes = vectors[:, ::-1][:, :3].T
    # The sign of a principal direction is arbitrary; fixing it makes colours reproducible.
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    along = (cells - mean) @ axes.T
    total = float(values.sum())
    explained = 100 * float(values[::-1][:3].sum()) / total if total > 0 else 0.0
    return ColourBasis(mean, axes, np.quantile(along, 0.01, axis=0), np.quantile(along, 0.99, axis=0), explained)


def box_similarity(features: Tensor, box: Box, stride: int) -> Tensor:
    """Cosine similarity of each cell to the average RoIAlign feature of a box.

    Args:
        features: (C, h, w) float.
        box: xyxy in network input pixels.
        stride: input pixels per cell.

    Returns:
        (h, w) float in [-1, 1].
    """
    region = pool_boxes(features[None], features.new_tensor([box]), stride)[0]
    return F.cosine_similarity(features, region[:, None, None], dim=0)


def run(settings: VisualizeSettings) -> list[Path]:
    """Write one sheet per image, with two rows per network, and one result per network; returns the sheets."""
    files = _listed(settings.images)[: settings.limit]
    images = [_scaled(read_rgb(file), settings.image_size) for file in files]
    boxes = [_scaled_box(settings.box, file, image) for file, image in zip(files, images, strict=True)]
    fabric = Fabric(accelerator=settings.accelerator, devices=1)
    networks = [resolve(name, settings.backbone, settings.seed) for name in settings.weights]
    parts = _parts(networks, settings.features)
    check_folder(settings.out)
    make_folder(settings.out)
    with folder_lock(settings.out):
        return _draw(fabric, settings, files, images, boxes, networks, parts)


def _draw(
    fabric: Fabric,
    settings: VisualizeSettings,
    files: Sequence[Path],
    images: Sequence[Image.Image],
    boxes: Sequence[Box],
    networks: Sequence[Weights],
    parts: tuple[str, ...],
) -> list[Path]:
    _prepare(settings)
    resolved = [file.resolve() for file in files]
    digest = data_digest(Path(os.path.commonpath([file.parent for file in resolved])), resolved)
    rows: list[list[list[pictures.Tile]]] = [[] for _ in files]
    titles = []
    for number, weights in enumerate(networks):
        network = FrozenNetwork(weights, parts).to(fabric.device)
        maps = [_maps(network, image, fabric.device) for image in tracked(images, weights.name, len(images))]
        for file, features in zip(files, maps, strict=True):
            for level in features.values():
                require_finite(level, f"{file} by {weights.name}")
        bases = {level: colour_basis([features[level].numpy() for features in maps]) for level in maps[0]}
        network.verify()
        titles.append(
            f"{weights.name} ({network.loaded}, {weights.digest[:15]}): three principal components as colours"
        )
        titles.append(f"{weights.name}: cosine similarity to the box")
        for index, features in enumerate(maps):
            rows[index].append(_colour_row(images[index], boxes[index], features, bases))
            rows[index].append(_similarity_row(images[index], boxes[index], features))
        Result(
            task="visualize",
            protocol="pca-and-box-similarity",
            engine=lightning_engine(),
            weights=WeightsIdentity.of(weights),
            loaded=network.loaded,
            tensors=network.tensors,
            data=DataIdentity(name=files[0].parent.name, digest=digest, images=len(files)),
            metrics={f"explained/{level}": basis.explained for level, basis in bases.items()},
            seed=settings.seed,
            versions=versions(),
            hardware=hardware(1, fabric.device.type),
        ).write(settings.out / f"{number:02d}" / RESULT_FILE)
    return [
        pictures.save(pictures.sheet(sheet_rows, _TILE, titles), settings.out / f"{file.stem}.png")
        for file, sheet_rows in zip(files, rows, strict=True)
    ]


def _listed(paths: Sequence[Path]) -> list[Path]:
    found = [file for path in paths for file in (list_images(path) if path.is_dir() else [path])]
    if absent := [file for file in found if not file.is_file()]:
        raise UserError(f"no image {absent[0]}: give image files or folders of images")
    stems = [file.stem for file in found]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise UserError(
            f"several images are named {twice[0]}: pictures are named after their images, so draw them in separate runs"
        )
    return found


def _parts(networks: Sequence[Weights], features: str | None) -> tuple[str, ...]:
    """Return the parts to load, the same for all networks, so that a column shows one kind of feature.

    Raises:
        UserError: the pyramid is asked for, and some weights have none.
    """
    without = [weights.name for weights in networks if "fpn" not in weights.parts]
    if features == "pyramid" and without:
        raise UserError(f"--features pyramid: {without[0]} has no pyramid; use --features stages")
    return ("backbone",) if features == "stages" or without else ("backbone", "fpn")


def _prepare(settings: VisualizeSettings) -> None:
    if not settings.overwrite and any(settings.out.glob(f"*/{RESULT_FILE}")):
        require_same(settings.out, settings)
    save_settings(settings, settings.out / SETTINGS_FILE)


def _scaled(image: Image.Image, short_side: int) -> Image.Image:
    scale = short_side / min(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _scaled_box(box: Box | None, file: Path, image: Image.Image) -> Box:
    """Convert the box to pixels of the scaled image; by default, the middle third."""
    if box is None:
        return (image.width / 3, image.height / 3, image.width * 2 / 3, image.height * 2 / 3)
    width, height = read_header(file).upright
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise UserError(f"box {box} is not inside {file} ({width}x{height}): give x1,y1,x2,y2 in its pixels")
    return (x1 * image.width / width, y1 * image.height / height, x2 * image.width / width, y2 * image.height / height)


@torch.no_grad()
def _maps(network: FrozenNetwork, image: Image.Image, device: torch.device) -> dict[str, Tensor]:
    """(C, h, w) features by level, with padding cells removed."""
    pixels: Tensor = pil_to_tensor(image).to(device)
    height, width = pixels.shape[-2:]
    image_batch = padded(pixels)
    outputs = network.pyramid(image_batch) if "fpn" in network.loaded else network.stages(image_batch)
    maps = {}
    for level, stage in LEVELS.items():
        stride = PYRAMID_STRIDES[level]
        features = outputs[level if level in outputs else stage][0].float().cpu()
        maps[level if level in outputs else stage] = features[:, : -(-height // stride), : -(-width // stride)]
    return maps


def _colour_row(
    image: Image.Image, box: Box, features: dict[str, Tensor], bases: dict[str, ColourBasis]
) -> list[pictures.Tile]:
    """The image with the box, and each level as colours."""
    marked = image.copy()
    ImageDraw.Draw(marked).rectangle(box, outline=(255, 40, 40), width=max(2, image.width // 150))
    tiles: list[pictures.Tile] = [(marked, "image and box")]
    for level, values in features.items():
        painted = Image.fromarray(bases[level].paint(values.numpy())).resize(image.size, Image.Resampling.NEAREST)
        tiles.append((painted, f"{level}: {bases[level].explained:.0f} % of variance"))
    return tiles


def _whole_pixels(box: Box) -> tuple[int, int, int, int]:
    """The box rounded outwards, so that it contains at least one pixel."""
    return math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])


def _similarity_row(image: Image.Image, box: Box, features: dict[str, Tensor]) -> list[pictures.Tile]:
    """The content of the box, and each level's similarity to it."""
    tiles: list[pictures.Tile] = [(image.crop(_whole_pixels(box)), "content of the box")]
    heat = colormaps["magma"]
    for level, values in features.items():
        similarity = box_similarity(values, box, 2 ** int(level[-1])).numpy()
        span = max(float(similarity.max() - similarity.min()), 1e-12)
        coloured = (heat((similarity - similarity.min()) / span)[..., :3] * 255).astype(np.uint8)
        shown = Image.fromarray(coloured).resize(image.size, Image.Resampling.BILINEAR)
        tiles.append((shown, f"{level}: {similarity.min():.2f} (dark) to {similarity.max():.2f}"))
    return tiles
