"""`ccop-pretrain proposals`: object proposals of every image under a folder, on all cores."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ccop_hub.console import save_settings
from ccop_hub.errors import UserError

from .data_settings import ProposalSettings
from .images import SkippedImages, UnreadableImageError, list_images, read_rgb
from .parallel import available_cores, one_opencv_thread, ordered_map
from .proposal_store import (
    MANIFEST,
    SKIPPED,
    ImageProposals,
    Manifest,
    ShardNotes,
    listing_digest,
    read_shard_notes,
    remove_shards,
    shard_listings,
    shard_path,
    write_shard,
)
from .selective_search import image_generator, load_opencv, propose

SETTINGS = "settings.yaml"


@dataclass(frozen=True)
class _ShardPlan:
    number: int
    images: Sequence[str]
    digest: str
    done: ShardNotes | None


def run(settings: ProposalSettings) -> None:
    """Make the proposals and print what came of it."""
    manifest, skipped = make_proposals(settings)
    read = manifest.images - manifest.skipped
    print(f"{manifest.boxes} boxes in {read} images ({manifest.boxes / read:.1f} an image, {manifest.empty} with none)")
    print(f"{skipped.summary()}" + (f"; all in {settings.out / SKIPPED}" if skipped else ""))
    print(f"proposals: {settings.out}")
    print(f"next: ccop-pretrain run --images {settings.images} --proposals {settings.out} --out RUN")


def make_proposals(settings: ProposalSettings) -> tuple[Manifest, SkippedImages]:
    """Make the proposals of a folder. Shards that an earlier run with equal settings has finished are kept.

    Returns:
        The manifest as it stands in the output folder, and the images left out.

    Raises:
        UserError: no image or not one that can be read, a setting out of range, OpenCV without selective search, or an
            output folder that holds other proposals.
    """
    _check_ranges(settings)
    images = list_images(settings.images)
    opencv = load_opencv().__version__
    manifest = Manifest(
        root=settings.images.resolve().name,
        images=len(images),
        listing=listing_digest(images),
        settings={name: getattr(settings, name) for name in ("mode", "max_side", "keep", "seed")},
        versions={"opencv": opencv, "pillow": metadata.version("pillow")},
    )
    manifest = _claim(settings, manifest)
    workers = settings.workers or available_cores()
    save_settings(dataclasses.replace(settings, workers=workers), settings.out / SETTINGS)

    shards = _fill_shards(settings, manifest, _plan_shards(settings, manifest, images), workers)
    remove_shards(settings.out, start=manifest.shards)
    skipped = SkippedImages()
    for image, reason in itertools.chain.from_iterable(shard.skipped.items() for shard in shards):
        skipped.add(image, reason)
    skipped.write_csv(settings.out / SKIPPED)
    if len(skipped) == len(images):
        raise UserError(f"not one of the {len(images)} images in {settings.images} can be used: {skipped.summary()}")
    manifest = dataclasses.replace(
        manifest,
        skipped=len(skipped),
        boxes=sum(shard.boxes for shard in shards),
        empty=sum(shard.empty for shard in shards),
        complete=True,
    )
    manifest.write(settings.out)
    return manifest, skipped


def _check_ranges(settings: ProposalSettings) -> None:
    for name in ("workers", "max_side", "keep"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; give 1 or more")


def _claim(settings: ProposalSettings, manifest: Manifest) -> Manifest:
    """Make the output folder ours, or go on with what an equal run left there.

    Other versions of OpenCV or Pillow do not make a run another one: throwing away hours of work for an upgrade would
    surprise, so the versions of the first run stand in the manifest.
    """
    out = settings.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder for the proposals")
    if (out / MANIFEST).exists():
        if not settings.overwrite:
            there = Manifest.read(out)
            _require_same_run(out, there, manifest)
            manifest = dataclasses.replace(manifest, versions=there.versions)
        else:
            remove_shards(out)
    out.mkdir(parents=True, exist_ok=True)
    manifest.write(out)
    return manifest


def _require_same_run(out: Path, there: Manifest, wanted: Manifest) -> None:
    fix = "add --overwrite to replace them, or give another --out"
    if there.settings != wanted.settings:
        changed = [name for name, value in wanted.settings.items() if there.settings.get(name) != value]
        differences = ", ".join(f"{name} {there.settings.get(name)} not {wanted.settings[name]}" for name in changed)
        raise UserError(f"{out} holds proposals of other settings ({differences}); {fix}")
    if there.listing != wanted.listing:
        raise UserError(
            f"{out} holds proposals of other images ({there.images} of {there.root!r}, not the {wanted.images} of "
            f"{wanted.root!r}); {fix}"
        )


def _plan_shards(settings: ProposalSettings, manifest: Manifest, images: Sequence[str]) -> list[_ShardPlan]:
    """Cut the listing into shards and find those that are finished: same settings, same files by path and size."""
    plans = []
    made_with = json.dumps(manifest.settings, sort_keys=True)
    for number, listing in shard_listings(images):
        sizes = [f"{image}\0{_file_size(settings.images / image)}" for image in listing]
        digest = hashlib.sha256(f"{made_with}\n{listing_digest(sizes)}".encode()).hexdigest()
        notes = read_shard_notes(shard_path(settings.out, number))
        plans.append(_ShardPlan(number, listing, digest, notes if notes and notes.digest == digest else None))
    return plans


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _fill_shards(
    settings: ProposalSettings, manifest: Manifest, plans: Sequence[_ShardPlan], workers: int
) -> list[ShardNotes]:
    """Search the images of all unfinished shards, writing each shard as soon as its last image is there."""
    pending = itertools.chain.from_iterable(plan.images for plan in plans if plan.done is None)
    outcomes = ordered_map(functools.partial(_propose_image, settings), pending, workers, one_opencv_thread)
    shards = []
    with _progress() as progress:
        task = progress.add_task("selective search", total=manifest.images)
        for plan in plans:
            if plan.done is not None:
                progress.advance(task, len(plan.images))
                shards.append(plan.done)
                continue
            rows, skipped = [], {}
            # `outcomes` runs over all shards: this takes as many of them as this shard has images.
            for image, outcome in zip(plan.images, outcomes, strict=False):
                if isinstance(outcome, ImageProposals):
                    rows.append(outcome)
                else:
                    skipped[image] = outcome
                progress.advance(task)
            shards.append(write_shard(shard_path(settings.out, plan.number), rows, skipped, plan.digest))
    return shards


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
    )


def _propose_image(settings: ProposalSettings, image: str) -> ImageProposals | str:
    """The proposals of one image, or why there are none."""
    try:
        image.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    try:
        pixels = np.asarray(read_rgb(settings.images / image))
    except UnreadableImageError as error:
        return error.reason
    try:
        boxes = propose(pixels, image_generator(settings.seed, image), settings.mode, settings.max_side, settings.keep)
    except load_opencv().error as error:
        return f"selective search failed: {' '.join(str(error).split())}"
    return ImageProposals(image, pixels.shape[1], pixels.shape[0], boxes)
