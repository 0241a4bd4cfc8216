"""The images of a run and their proposals."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.image_sources.skipped import SkippedImages, require_readable
from ccop_hub.image_sources.source import open_source
from ccop_hub.image_sources.stored_images import ImageSource, StoredImage
from ccop_hub.images import Pixels, Reduction, UnreadableImageError
from ccop_hub.proposals.store import ProposalStore

from ..settings import ReadingSettings, RunSettings

CHECKED_IMAGES = 8
"""Number of images to read before a run starts, to fail early if none decodes or the proposals do not match."""


@dataclass(frozen=True)
class ImageListing:
    """The images of a run and their proposals, addressed by index.

    Attributes:
        source: the images.
        proposals: their boxes, or None if the objective uses no boxes.
        reading: which images to leave out.
    """

    source: ImageSource
    proposals: ProposalStore | None
    reading: ReadingSettings = field(default_factory=ReadingSettings)

    @classmethod
    def open(
        cls,
        images: Path,
        proposals: Path | None,
        reading: ReadingSettings | None = None,
        exclude: Collection[Path] = (),
    ) -> ImageListing:
        """List the images (see `open_source`) and open their proposals.

        Args:
            images: folder, list, shards or COCO JSON.
            proposals: folder of proposals, or None.
            reading: which images to leave out.
            exclude: folders to skip, such as a run's output folder inside the image folder.

        Raises:
            UserError: there are no images, none can be read, the proposals belong to other images, or the proposals
                leave out more images than `reading` allows.
        """
        source = open_source(images, exclude)
        store = None
        if proposals is not None:
            store = ProposalStore.open(proposals)
            store.require(source.keys)
        listing = cls(source, store, reading or ReadingSettings())
        require_readable(listing.left_out(), len(source), listing.reading.max_unreadable)
        listing._check_some()
        return listing

    def __len__(self) -> int:
        return len(self.source)

    @property
    def root(self) -> Path:
        """Folder that `paths` are relative to."""
        return self.source.root

    @property
    def paths(self) -> Sequence[str]:
        """Image keys: sorted relative POSIX paths."""
        return self.source.keys

    @property
    def digest(self) -> str:
        """`sha256:` followed by the digest of the paths."""
        return f"sha256:{self.source.digest}"

    def left_out(self) -> SkippedImages:
        """Listed images without proposals, because they were unreadable when the proposals were computed."""
        skipped = SkippedImages()
        for path, reason in ({} if self.proposals is None else self.proposals.skipped).items():
            if self.source.keys.find(path) is not None:
                skipped.add(path, reason)
        return skipped

    def read(self, index: int) -> Image.Image:
        """Return the image at `index`, upright, as 8-bit RGB.

        Raises:
            UnreadableImageError: the image cannot be decoded, or could not be when the proposals were computed.
        """
        return self._stored(index).read(self.reading.max_pixels)

    def read_pixels(self, index: int, reduction: Reduction) -> tuple[Pixels, int]:
        """Return the image at `index` as an array, possibly reduced; see `ccop_hub.images.decode_pixels`.

        Raises:
            UnreadableImageError: as for `read`.
        """
        return self._stored(index).read_pixels(reduction, self.reading.max_pixels)

    def boxes(self, index: int) -> NDArray[np.float32]:
        """Return the proposals of a readable image, (N, 4) float32 xyxy in image pixels; N is 0 without proposals."""
        if self.proposals is None:
            return np.zeros((0, 4), dtype=np.float32)
        return self.proposals.boxes(self.paths[index])

    def _stored(self, index: int) -> StoredImage:
        stored = self.source[index]
        if self.proposals is not None and stored.key in self.proposals.skipped:
            raise UnreadableImageError(self.root / stored.key, self.proposals.skipped[stored.key])
        return stored

    def _check_some(self) -> None:
        """Check that at least one of a few images decodes, and that their sizes match their proposals."""
        spread = range(0, len(self), max(1, len(self) // CHECKED_IMAGES))
        readable = 0
        for place, index in enumerate([*spread, *range(len(self))]):
            if readable and place >= len(spread):
                return
            try:
                size = self.read(index).size
            except UnreadableImageError:
                continue
            readable += 1
            if self.proposals is not None and self.proposals.size(self.paths[index]) != size:
                raise UserError(
                    f"{self.paths[index]} has {size[0]} x {size[1]} pixels, but its proposals in "
                    f"{self.proposals.folder} were made from an image of another size; make proposals for this folder: "
                    f"ccop-pretrain proposals {self.root} --out NEW"
                )
        if not readable:
            raise UserError(f"none of the {len(self)} images in {self.root} can be read; replace the damaged files")


def open_listing(settings: RunSettings) -> ImageListing:
    """Open a run's images, and the proposals if losses or crops need them; raises the errors of `ImageListing.open`."""
    proposals = settings.proposals if settings.reads_boxes else None
    return ImageListing.open(settings.images, proposals, settings, exclude=[settings.out])
