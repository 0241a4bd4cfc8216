"""Search the images that have no proposals yet, on all cores."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO

import numpy as np

from ccop_hub.cores import available_cores
from ccop_hub.errors import UserError
from ccop_hub.image_sources.skipped import SkippedImages, require_readable
from ccop_hub.image_sources.stored_images import ImageSource, StoredImage
from ccop_hub.images import UnreadableImageError, decode_rgb
from ccop_hub.progress import Progress, announce
from ccop_hub.proposals.shards import SKIPPED, ImageProposals, content_digest
from ccop_hub.stopping import stop_signals_blocked

from ..common.parallel import OrderedMap, one_opencv_thread
from ..estimates import BYTES_A_BOX, BYTES_AN_IMAGE, Cost, shortages
from ..settings import ProposalSettings
from .ledger import Ledger, PartWriter
from .opencv_search import load_opencv
from .publication import Shard
from .selective_search import image_generator, propose


def search(settings: ProposalSettings, ledger: Ledger) -> dict[int, str]:
    """Search the pending images of the ledger's share, writing the rows to parts as they arrive.

    If interrupted, the proposals found so far are kept.

    Returns:
        Reason by index for each image that cannot be used.

    Raises:
        UserError: more images are unusable than the settings allow.
    """
    pending = np.fromiter(ledger.pending(), dtype=np.int64)
    if not len(pending):
        return {}
    _warn_of_disk(settings, len(pending))
    if settings.engine == "fast":
        compile_search()
    total = ledger.kept + len(pending)
    workers = min(settings.workers or available_cores(), len(pending))
    waiting = (ledger.source[index] for index in pending)
    skipped: dict[int, str] = {}
    writer = PartWriter(ledger)
    taken = 0
    with (
        Progress("selective search", total, ledger.kept) as progress,
        OrderedMap(functools.partial(propose_image, settings), waiting, workers, one_opencv_thread) as outcomes,
    ):
        try:
            for outcome in outcomes:
                with stop_signals_blocked():
                    if isinstance(outcome, ImageProposals):
                        writer.add(int(pending[taken]), outcome)
                    else:
                        skipped[int(pending[taken])] = outcome
                    taken += 1
                if len(skipped) > settings.max_unreadable * total:
                    _require_readable(settings, named(ledger.source, skipped), total)
                progress.advance()
        finally:
            for position, outcome in outcomes.finished():
                if position >= taken and isinstance(outcome, ImageProposals):
                    writer.add(int(pending[position]), outcome)
            writer.flush()
    return skipped


def propose_image(settings: ProposalSettings, stored: StoredImage) -> ImageProposals | str:
    """Compute the proposals of one image, or return the reason why it cannot be used."""
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
        boxes = propose(pixels, generator, settings.mode, settings.max_side, settings.keep, settings.engine)
    except load_opencv().error as error:
        return f"selective search failed: {' '.join(str(error).split())}"
    return ImageProposals(stored.key, pixels.shape[1], pixels.shape[0], boxes, len(data), content_digest(data))


def _warn_of_disk(settings: ProposalSettings, images: int) -> None:
    """Warn if the disk may be too small for the parts and the shards, which exist at the same time."""
    most = 2 * images * (settings.keep * BYTES_A_BOX + BYTES_AN_IMAGE)
    for warning in shortages({"the search": Cost(0.0, 0, 0, most, 0.0)}, settings.out):
        print(f"warning: {warning}", file=sys.stderr, flush=True)


def compile_search() -> None:
    """Compile the search before the workers start, with a message, since it is the longest wait of a first run."""
    from .fast_search.compilation import COMPILE_SECONDS, is_compiled, load_kernels

    if not is_compiled():
        announce(f"compiling the search, once: about {COMPILE_SECONDS} s")
        load_kernels()


def within_limit(shards: Iterable[Shard], settings: ProposalSettings, images: int) -> Iterator[Shard]:
    """Yield the shards unchanged, checking the number of images left out.

    Raises:
        UserError: more images are left out than the settings allow.
    """
    skipped = SkippedImages()
    for shard in shards:
        for image, reason in shard.notes.skipped.items():
            skipped.add(image, reason)
        _require_readable(settings, skipped, images)
        yield shard


def named(source: ImageSource, reasons: Mapping[int, str]) -> SkippedImages:
    """Convert reasons by image index to images left out by key."""
    skipped = SkippedImages()
    for index, reason in reasons.items():
        skipped.add(source.keys[index], reason)
    return skipped


def _require_readable(settings: ProposalSettings, skipped: SkippedImages, images: int) -> None:
    try:
        require_readable(skipped, images, settings.max_unreadable)
    except UserError as error:
        skipped.write_csv(settings.out / SKIPPED)
        raise UserError(f"{error}; the ones found so far are listed in {settings.out / SKIPPED}") from None
