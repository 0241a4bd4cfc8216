"""`ccop-pretrain proposals`: compute object proposals for a set of images, on all cores of one or more machines."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ccop_hub.cores import available_cores
from ccop_hub.errors import UserError
from ccop_hub.files import check_replaceable, make_folder
from ccop_hub.image_sources.skipped import SkippedImages
from ccop_hub.image_sources.source import open_source
from ccop_hub.image_sources.stored_images import ImageSource
from ccop_hub.locks import LOCK_FILE, folder_lock
from ccop_hub.notebook import summary_html
from ccop_hub.progress import announce
from ccop_hub.proposals.shards import Manifest
from ccop_hub.stopping import stoppable

from ..settings import ProposalSettings
from .check import CheckReport, check_proposals
from .claim import claim
from .exchange import hand_over, take_over
from .ledger import WHOLE, Ledger, Share, remove_parts, take_parts
from .publication import gather_shards, publish
from .search import named, search, within_limit


@dataclass(frozen=True)
class ProposalsResult:
    """Result of a search.

    Attributes:
        images: the `images` setting.
        folder: folder of proposals.
        proposed: number of images with proposals, within `share` if set.
        boxes: number of boxes; None for a share.
        empty: number of images without a box; None for a share.
        skipped: images left out.
        passed_over: number of non-image files, by suffix.
        share: share searched by this machine; None for all images.
        coco: exported COCO JSON and its number of boxes.
    """

    images: Path
    folder: Path
    proposed: int
    boxes: int | None
    empty: int | None
    skipped: SkippedImages
    passed_over: dict[str, int]
    share: Share | None = None
    coco: tuple[Path, int] | None = None

    def _repr_html_(self) -> str:
        rows = {"images": self.proposed, "boxes": self.boxes, "images without a box": self.empty}
        return summary_html(str(self.folder), rows | {"left out": self.skipped.summary()})


def run(settings: ProposalSettings) -> ProposalsResult | CheckReport:
    """Compute the proposals or one machine's share of them, or, with `check`, report on existing ones.

    Raises:
        UserError: see `make_proposals`.
        Stopped: a stop signal was received; the proposals found so far are kept.
    """
    with stoppable():
        if settings.to_coco is not None:
            check_replaceable(settings.to_coco)  # rather than after the search
        announce(f"listing the images of {settings.images}")
        source = open_source(settings.images, exclude=[settings.out])
        if settings.check:
            return check_proposals(source, settings)
        if settings.shard is not None:
            share = Share.parse(settings.shard)
            made, skipped = search_share(source, settings, share)
            return ProposalsResult(
                settings.images, settings.out, made, None, None, skipped, source.passed_over, share=share
            )
        manifest, skipped = make_proposals(settings, source)
        coco = None
        if settings.to_coco is not None:
            coco = settings.to_coco, hand_over(settings.out, source, settings.to_coco)
    proposed = manifest.images - manifest.skipped
    return ProposalsResult(
        settings.images,
        settings.out,
        proposed,
        manifest.boxes,
        manifest.empty,
        skipped,
        source.passed_over,
        coco=coco,
    )


def make_proposals(settings: ProposalSettings, source: ImageSource | None = None) -> tuple[Manifest, SkippedImages]:
    """Compute proposals for a set of images, keeping results of earlier runs with the same settings.

    Args:
        settings: settings of the command; `shard`, `to_coco` and `check` are ignored.
        source: the images; defaults to `settings.images`.

    Returns:
        The manifest of the output folder, and the images left out.

    Raises:
        UserError: there are no images, too many are unreadable, a setting is out of range, OpenCV lacks selective
            search, the output folder contains other proposals, or another process is writing to it.
    """
    source = source or open_source(settings.images, exclude=[settings.out])
    make_folder(settings.out)
    with folder_lock(settings.out):
        manifest = claim(settings, source)
        if settings.from_coco is not None:
            taken = take_over(source, settings.from_coco, settings.out, manifest.settings_digest, settings.keep)
            return publish(settings.out, manifest, within_limit(taken, settings, len(source)), time.time_ns())
        take_parts(settings.out, settings.merge or (), manifest.settings_digest)
        ledger = _take_stock(settings, source, manifest, WHOLE)
        skipped = search(settings, ledger)
        if len(skipped) == len(source):
            raise UserError(f"none of the images of {source.name!r} can be used: {named(source, skipped).summary()}")
        result = publish(settings.out, manifest, gather_shards(ledger, skipped), ledger.compared_ns)
        remove_parts(settings.out, ledger.parts())
        return result


def search_share(source: ImageSource, settings: ProposalSettings, share: Share) -> tuple[int, SkippedImages]:
    """Search one machine's share of the images, writing to `parts` in an output folder that machines may share.

    Returns:
        Number of the share's images that have proposals, and the images left out.

    Raises:
        UserError: see `make_proposals`.
    """
    make_folder(settings.out)
    with folder_lock(settings.out, shared=True), folder_lock(settings.out, f"{LOCK_FILE}-{share}"):
        manifest = claim(settings, source)
        ledger = _take_stock(settings, source, manifest, share)
        skipped = search(settings, ledger)
        return int((ledger.file >= 0).sum()), named(source, skipped)


def _take_stock(settings: ProposalSettings, source: ImageSource, manifest: Manifest, share: Share) -> Ledger:
    """Find the images that already have proposals; refuse a folder that only has proposals for other images."""
    workers = settings.workers or available_cores()
    ledger = Ledger(source, settings.out, manifest.settings_digest, settings.max_pixels, workers, share)
    if ledger.files and not ledger.kept and share == WHOLE:
        raise UserError(
            f"{settings.out} contains proposals for other images, none of which is among the {len(source)} of "
            f"{source.name!r}; add --overwrite to replace them, or give another --out"
        )
    return ledger
