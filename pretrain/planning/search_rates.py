"""Measure the search for proposals; nothing here imports torch, which the real command does not load either."""

from __future__ import annotations

import functools
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from ccop_hub.cores import available_cores
from ccop_hub.image_sources.source import open_source
from ccop_hub.proposals.shards import shard_paths

from ..common.parallel import OrderedMap, in_own_process, one_opencv_thread
from ..common.process_memory import children_memory, peak_memory
from ..proposals.run import make_proposals
from ..proposals.search import compile_search, propose_image
from ..settings import ProposalSettings

MEASURED_SECONDS = 8.0
"""Time for measuring, after the worker processes have started."""


@dataclass(frozen=True)
class SearchJob:
    """A search to measure.

    Attributes:
        images: folder of the sample.
        out: folder for its proposals.
        workers: number of processes that will search.
        submitted: when the process that measures was started, as of `time.time`.
    """

    images: Path
    out: Path
    workers: int
    submitted: float


@dataclass(frozen=True)
class SearchRates:
    """See the fields of the same names in `estimates.Rates`."""

    search_seconds: float
    search_base: int
    search_memory: int
    search_disk: float
    search_start: float
    boxes: float


def measure_search(job: SearchJob) -> SearchRates:
    """Make the proposals of the sample, then search it again and again; call it in a new process.

    This process does what the main process of the command does, so that its memory is measured along with the workers'.
    """
    imported = time.time() - job.submitted
    wanted = ProposalSettings(job.images, job.out, workers=job.workers, max_unreadable=1.0)
    one = in_own_process(_seconds_of_one_search, wanted)
    base = peak_memory()
    source = open_source(job.images)
    manifest, skipped = make_proposals(wanted, source)
    images = manifest.images - len(skipped)
    disk = sum(map(_bytes_of_rows, shard_paths(job.out))) / images
    busy = min(job.workers, available_cores())
    waiting = 16 * job.workers  # the first results include the start of the processes
    count = waiting + max(4 * job.workers, round(MEASURED_SECONDS / one * busy))
    endless = itertools.islice(itertools.cycle(source), count)
    opened = time.perf_counter()
    started, memory, ready = 0.0, 0, 0.0
    with OrderedMap(functools.partial(propose_image, wanted), endless, job.workers, one_opencv_thread) as results:
        for number, _ in enumerate(results):
            ready = ready or time.perf_counter() - opened
            if number == waiting:
                started = time.perf_counter()
            if number % waiting == 0:
                memory = max(memory, children_memory() if job.workers > 1 else peak_memory() - base)
    seconds = (time.perf_counter() - started) / (count - waiting - 1) * busy
    if job.workers > 1:
        base = peak_memory()
    start = imported + max(0.0, ready - one)
    return SearchRates(seconds, base, memory // job.workers, disk, start, manifest.boxes / images)


def _seconds_of_one_search(settings: ProposalSettings) -> float:
    """Measure the search of one image, after the search has been compiled if it is not in the cache."""
    compile_search()
    source = open_source(settings.images)
    propose_image(settings, source[0])
    begun = time.perf_counter()
    propose_image(settings, source[0])
    return time.perf_counter() - begun


def _bytes_of_rows(shard: Path) -> int:
    """Return the size of a Parquet file without its footer, which does not grow with the images."""
    found = pq.read_metadata(shard)
    groups = (found.row_group(number) for number in range(found.num_row_groups))
    return sum(group.column(place).total_compressed_size for group in groups for place in range(group.num_columns))
