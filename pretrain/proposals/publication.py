"""Replace a folder's result atomically: a killed run leaves either the old result or the new one.

New files are first written to `staging/`, with the manifest last. Once the manifest exists, the new result is valid: if
a run is killed while moving it into place, the next one finishes the move.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccop_hub.files import remove_temporary_files
from ccop_hub.image_sources.skipped import SkippedImages
from ccop_hub.proposals.shards import (
    MANIFEST,
    SKIPPED,
    ImageProposals,
    Manifest,
    ShardNotes,
    notes_of,
    read_notes,
    shard_bounds,
    shard_path,
    shard_paths,
    write_shard,
)

from .ledger import Ledger

STAGING = "staging"


@dataclass(frozen=True)
class Shard:
    """A shard of the result.

    Attributes:
        number: shard number, from 0.
        notes: description of the rows.
        rows: rows sorted by image; None if the existing file already contains them.
    """

    number: int
    notes: ShardNotes
    rows: Sequence[ImageProposals] | None


def gather_shards(ledger: Ledger, skipped: Mapping[int, str]) -> Iterator[Shard]:
    """Yield the shards of a full listing; `skipped` gives the reason for each image without a row."""
    for number, indices in shard_bounds(len(ledger.source)):
        made = [index for index in indices if ledger.file[index] >= 0]
        left_out = {ledger.source.keys[index]: skipped[index] for index in indices if ledger.file[index] < 0}
        path = shard_path(ledger.folder, number)
        places = [(ledger.files[ledger.file[index]], int(ledger.row[index])) for index in made]
        if places == [(path, row) for row in range(len(made))]:
            notes = read_notes(path)
            if notes is not None and notes.rows == len(made) and notes.skipped == left_out:
                yield Shard(number, notes, None)
                continue
        rows = list(ledger.rows(made))
        yield Shard(number, notes_of(rows, left_out, ledger.settings), rows)


def publish(
    folder: Path, manifest: Manifest, shards: Iterable[Shard], compared_ns: int
) -> tuple[Manifest, SkippedImages]:
    """Replace the result of a folder with these shards.

    Args:
        folder: folder of proposals.
        manifest: manifest without totals.
        shards: all shards of the result.
        compared_ns: time of the listing that the rows were checked against, in ns.

    Returns:
        The manifest with totals, and the images left out.
    """
    staging = folder / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    skipped = SkippedImages()
    boxes = empty = 0
    for shard in shards:
        if shard.rows is None:
            os.utime(shard_path(folder, shard.number), ns=(compared_ns, compared_ns))
        else:
            write_shard(shard_path(staging, shard.number), shard.rows, shard.notes, compared_ns)
        boxes, empty = boxes + shard.notes.boxes, empty + shard.notes.empty
        for image, reason in shard.notes.skipped.items():
            skipped.add(image, reason)
    skipped.write_csv(staging / SKIPPED)
    manifest = dataclasses.replace(manifest, skipped=len(skipped), boxes=boxes, empty=empty, complete=True)
    manifest.write(staging)
    finish_publication(folder)
    return manifest, skipped


def finish_publication(folder: Path) -> None:
    """Finish moving a staged result into place; remove one that is incomplete."""
    staging = folder / STAGING
    if (staging / MANIFEST).is_file():
        manifest = Manifest.read(staging)
        dataclasses.replace(manifest, complete=False).write(folder)
        for path in shard_paths(staging):
            path.replace(folder / path.name)
        for path in shard_paths(folder)[manifest.shards :]:
            path.unlink()
        if (staging / SKIPPED).exists():
            (staging / SKIPPED).replace(folder / SKIPPED)
        (staging / MANIFEST).replace(folder / MANIFEST)
    shutil.rmtree(staging, ignore_errors=True)
    remove_temporary_files(folder)
