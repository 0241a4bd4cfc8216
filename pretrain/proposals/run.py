"""`ccop-pretrain proposals`: object proposals of every image of a set, on all cores and any number of machines."""

from __future__ import annotations

import dataclasses
import functools
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ccop_hub.errors import UserError
from ccop_hub.files import file_digest
from ccop_hub.images import UnreadableImageError, decode_rgb, describe_passed_over
from ccop_hub.saved_settings import save_settings

from ..common.parallel import available_cores, one_opencv_thread, ordered_map
from ..images.skipped import SkippedImages, require_readable
from ..images.source import ImageSource, StoredImage, open_source
from ..settings import ProposalSettings
from .check import check_proposals
from .exchange import hand_over, take_over
from .ledger import WHOLE, Ledger, PartWriter, Share, remove_parts, take_parts
from .publication import Shard, finish_publication, gather_shards, publish
from .selective_search import image_generator, load_opencv, propose
from .shards import (
    MANIFEST,
    SKIPPED,
    ImageProposals,
    Manifest,
    content_digest,
    settings_digest,
    shard_paths,
)

SETTINGS = "settings.yaml"


def run(settings: ProposalSettings) -> int:
    """Make the proposals, or check them, and print what came of it.

    Returns:
        The exit code: 1 where `--check` found images without proposals, else 0.
    """
    _check_flags(settings)
    source = open_source(settings.images, exclude=[settings.out])
    if settings.check:
        return check_proposals(source, settings)
    if settings.shard is not None:
        share = Share.parse(settings.shard)
        made, skipped = search_share(source, settings, share)
        print(f"part {settings.shard} is searched: {made} images; {skipped.summary()}")
        print(
            f"next, when all {share.of} parts are: the same command without --shard makes the result in {settings.out}"
        )
        return 0
    manifest, skipped = make_proposals(settings, source)
    read = manifest.images - manifest.skipped
    print(f"{manifest.boxes} boxes in {read} images ({manifest.boxes / read:.1f} an image, {manifest.empty} with none)")
    print(f"{skipped.summary()}" + (f"; all in {settings.out / SKIPPED}" if skipped else ""))
    if source.passed_over:
        print(f"passed over {describe_passed_over(source.passed_over)}")
    print(f"proposals: {settings.out}")
    if settings.to_coco is not None:
        written = hand_over(settings.out, source, settings.to_coco)
        print(f"COCO JSON: {settings.to_coco} ({written} boxes)")
    print(f"next: ccop-pretrain run --images {shlex.quote(str(settings.images))} --proposals {settings.out} --out RUN")
    return 0


def make_proposals(settings: ProposalSettings, source: ImageSource | None = None) -> tuple[Manifest, SkippedImages]:
    """Make the proposals of a set of images. What earlier runs with equal settings have found is kept.

    Args:
        settings: of the command; `shard`, `to_coco` and `check` are not looked at.
        source: the images; those of `settings.images` unless given.

    Returns:
        The manifest as it stands in the output folder, and the images left out.

    Raises:
        UserError: no image, too many that cannot be read, a setting out of range, OpenCV without selective search, or
            an output folder that holds other proposals.
    """
    _check_flags(settings)
    source = source or open_source(settings.images, exclude=[settings.out])
    manifest = _claim(settings, source)
    if settings.from_coco is not None:
        taken = take_over(source, settings.from_coco, settings.out, manifest.settings_digest, settings.keep)
        return publish(settings.out, manifest, _within_limit(taken, settings, len(source)), time.time_ns())
    take_parts(settings.out, settings.merge or (), manifest.settings_digest)
    ledger = _take_stock(settings, source, manifest, WHOLE)
    skipped = _search(settings, ledger)
    if len(skipped) == len(source):
        raise UserError(f"not one image of {source.name!r} can be used: {_named(source, skipped).summary()}")
    result = publish(settings.out, manifest, gather_shards(ledger, skipped), ledger.compared_ns)
    remove_parts(settings.out, ledger.parts())
    return result


def search_share(source: ImageSource, settings: ProposalSettings, share: Share) -> tuple[int, SkippedImages]:
    """Search one machine's share of the images into `parts` of the output folder, which other machines may share.

    Returns:
        Number of images of the share that have proposals, and the images left out.

    Raises:
        UserError: as `make_proposals`.
    """
    _check_flags(settings)
    manifest = _claim(settings, source)
    ledger = _take_stock(settings, source, manifest, share)
    skipped = _search(settings, ledger)
    return int((ledger.file >= 0).sum()), _named(source, skipped)


def _check_flags(settings: ProposalSettings) -> None:
    for name in ("workers", "max_side", "keep", "max_pixels"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; give 1 or more")
    if not 0 <= settings.max_unreadable <= 1:
        raise UserError(f"--max-unreadable is {settings.max_unreadable}; give a share from 0 to 1")
    one_of = [name for name in ("shard", "merge", "from_coco", "check") if getattr(settings, name)]
    if len(one_of) > 1:
        raise UserError(f"{' and '.join(_flag(name) for name in one_of)} do not go together; give one of them")
    if settings.shard and (settings.overwrite or settings.to_coco):
        other = _flag("overwrite" if settings.overwrite else "to_coco")
        raise UserError(f"{other} is for the whole result, not for one machine of many; leave out {other} or --shard")
    if settings.ground_truth and not settings.check:
        raise UserError("--ground-truth is what --check compares with; add --check")
    if settings.shard:
        Share.parse(settings.shard)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _claim(settings: ProposalSettings, source: ImageSource) -> Manifest:
    """Make the output folder ours, or go on with what an equal run left there.

    Other versions of OpenCV or Pillow do not make a run another one: throwing away hours of work for an upgrade would
    surprise, so the versions of the first run stand in the manifest.
    """
    out = settings.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder for the proposals")
    manifest = _manifest(settings, source)
    out.mkdir(parents=True, exist_ok=True)
    if settings.shard is None:
        finish_publication(out)
    if settings.overwrite:
        for path in shard_paths(out):
            path.unlink()
        remove_parts(out)
        (out / MANIFEST).unlink(missing_ok=True)
    if (out / MANIFEST).exists():
        there = Manifest.read(out)
        _require_same_settings(out, there, manifest)
        manifest = dataclasses.replace(manifest, versions=there.versions)
    else:
        manifest.write(out)
    workers = settings.workers or available_cores()
    save_settings(dataclasses.replace(settings, workers=workers), out / SETTINGS)
    return manifest


def _manifest(settings: ProposalSettings, source: ImageSource) -> Manifest:
    made_with: dict[str, Any] = {"mode": settings.mode, "max_side": settings.max_side}
    made_with |= {"keep": settings.keep, "seed": settings.seed}
    versions = {"pillow": metadata.version("pillow")}
    if settings.from_coco is not None:
        made_with = {"from_coco": f"sha256:{_digest_of(settings.from_coco)}", "keep": settings.keep}
    else:
        versions["opencv"] = load_opencv().__version__
    return Manifest(
        root=source.name,
        images=len(source),
        listing=source.digest,
        settings=made_with,
        settings_digest=settings_digest(made_with),
        versions=versions,
    )


def _digest_of(path: Path) -> str:
    try:
        return file_digest(path).partition(":")[2]
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); give a COCO JSON file") from None


def _require_same_settings(out: Path, there: Manifest, wanted: Manifest) -> None:
    if there.settings_digest == wanted.settings_digest:
        return
    names = dict.fromkeys([*wanted.settings, *there.settings])
    pairs = [(name, there.settings.get(name), wanted.settings.get(name)) for name in names]
    differences = ", ".join(f"{name} {old} not {new}" for name, old, new in pairs if old != new)
    raise UserError(
        f"{out} holds proposals of other settings ({differences}); add --overwrite to replace them, or give another "
        "--out"
    )


def _take_stock(settings: ProposalSettings, source: ImageSource, manifest: Manifest, share: Share) -> Ledger:
    """See which images have proposals already; refuse a folder that holds those of other images alone."""
    workers = settings.workers or available_cores()
    ledger = Ledger(source, settings.out, manifest.settings_digest, settings.max_pixels, workers, share)
    if ledger.files and not ledger.kept and share == WHOLE:
        raise UserError(
            f"{settings.out} holds proposals of other images, none of which is among the {len(source)} of "
            f"{source.name!r} as it was; add --overwrite to replace them, or give another --out"
        )
    return ledger


def _search(settings: ProposalSettings, ledger: Ledger) -> dict[int, str]:
    """Search the images of the ledger's share that have no row, writing parts as they come.

    Returns:
        Reason by index for the images that cannot be used.

    Raises:
        UserError: more of them than the settings allow; what was found until then is kept.
    """
    pending = np.fromiter(ledger.pending(), dtype=np.int64)
    if not len(pending):
        return {}
    total = ledger.kept + len(pending)
    workers = min(settings.workers or available_cores(), len(pending))
    waiting = (ledger.source[index] for index in pending)
    outcomes = ordered_map(functools.partial(_propose_image, settings), waiting, workers, one_opencv_thread)
    skipped: dict[int, str] = {}
    writer = PartWriter(ledger)
    with _progress() as progress:
        bar = progress.add_task("selective search", total=total, completed=ledger.kept)
        try:
            for index, outcome in zip(pending.tolist(), outcomes, strict=True):
                if isinstance(outcome, ImageProposals):
                    writer.add(index, outcome)
                else:
                    skipped[index] = outcome
                    _require_readable(settings, _named(ledger.source, skipped), total)
                progress.advance(bar)
        finally:
            writer.flush()
    return skipped


def _within_limit(shards: Iterable[Shard], settings: ProposalSettings, images: int) -> Iterator[Shard]:
    """Pass shards on while not too many of their images are left out."""
    skipped = SkippedImages()
    for shard in shards:
        for image, reason in shard.notes.skipped.items():
            skipped.add(image, reason)
        _require_readable(settings, skipped, images)
        yield shard


def _require_readable(settings: ProposalSettings, skipped: SkippedImages, images: int) -> None:
    try:
        require_readable(skipped, images, settings.max_unreadable)
    except UserError as error:
        skipped.write_csv(settings.out / SKIPPED)
        raise UserError(f"{error}; those met so far are in {settings.out / SKIPPED}") from None


def _named(source: ImageSource, reasons: Mapping[int, str]) -> SkippedImages:
    skipped = SkippedImages()
    for index, reason in reasons.items():
        skipped.add(source.keys[index], reason)
    return skipped


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
    )


def _propose_image(settings: ProposalSettings, stored: StoredImage) -> ImageProposals | str:
    """The proposals of one image, or why there are none."""
    try:
        stored.key.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    try:
        data = stored.read_bytes(settings.max_pixels)
        pixels = np.asarray(decode_rgb(BytesIO(data), stored.path, settings.max_pixels))
    except UnreadableImageError as error:
        return error.reason
    generator = image_generator(settings.seed, stored.key)
    try:
        boxes = propose(pixels, generator, settings.mode, settings.max_side, settings.keep)
    except load_opencv().error as error:
        return f"selective search failed: {' '.join(str(error).split())}"
    return ImageProposals(stored.key, pixels.shape[1], pixels.shape[0], boxes, len(data), content_digest(data))
