"""Measure the search for proposals; nothing here imports torch, which the real command does not load either."""

from __future__ import annotations

import functools
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

from ccop_hub.image_sources.source import open_source
from ccop_hub.proposals.shards import shard_paths

from ..common.parallel import OrderedMap, available_cores, one_opencv_thread
from ..common.process_memory import memory_in_use
from ..proposals.run import make_proposals
from ..proposals.search import propose_image
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
    """

    images: Path
    out: Path
    workers: int


@dataclass(frozen=True)
class SearchRates:
    """See the fields of the same names in `estimates.Rates`."""

    search_seconds: float
    search_memory: int
    search_disk: float
    boxes: float


def measure_search(job: SearchJob) -> SearchRates:
    """Make the proposals of the sample, then search it again and again; call it in a new process."""
    source = open_source(job.images)
    wanted = ProposalSettings(job.images, job.out, workers=1, max_unreadable=1.0)
    make_proposals(wanted, source)  # compiles the search, if it is not in the cache
    begun = time.perf_counter()
    propose_image(wanted, source[0])
    one = time.perf_counter() - begun
    manifest, skipped = make_proposals(wanted, source)
    images = manifest.images - len(skipped)
    disk = sum(path.stat().st_size for path in shard_paths(job.out)) / images
    busy = min(job.workers, available_cores())
    waiting = 16 * job.workers  # the first results include the start of the processes
    count = waiting + max(4 * job.workers, round(MEASURED_SECONDS / one * busy))
    endless = itertools.islice(itertools.cycle(source), count)
    started, memory = 0.0, 0
    with OrderedMap(functools.partial(propose_image, wanted), endless, job.workers, one_opencv_thread) as results:
        for number, _ in enumerate(results):
            if number == waiting:
                started, memory = time.perf_counter(), memory_in_use()
    seconds = (time.perf_counter() - started) / (count - waiting - 1) * busy
    processes = job.workers + 1 if job.workers > 1 else 1
    return SearchRates(seconds, memory // processes, disk, manifest.boxes / images)
