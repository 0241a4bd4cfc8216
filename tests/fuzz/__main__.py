"""`make fuzz`: coverage-guided fuzzing of one reader for a few minutes."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Fuzz until time runs out or a reader crashes; the crashing input is saved as `crash-*` in the current folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", help="what to read; without it, the names of all targets are printed")
    parser.add_argument("--minutes", type=float, default=5)
    arguments = parser.parse_args()
    if arguments.target is None:
        from .targets import TARGETS

        print(*TARGETS, sep="\n")
        return
    try:
        import atheris
    except ModuleNotFoundError:
        sys.exit("fuzzing needs atheris, which has wheels for Linux and Python 3.11 to 3.13: pip install -e '.[fuzz]'")
    with atheris.instrument_imports(include=["ccop_hub", "ccop_pretrain", "ccop_eval.results"]):
        from .targets import TARGETS, inputs
    target = TARGETS[arguments.target]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder, corpus = Path(name) / "folder", Path(name) / "corpus"
        folder.mkdir()
        corpus.mkdir()
        target.prepare(folder)
        for number, seed in enumerate(inputs(arguments.target)):
            (corpus / str(number)).write_bytes(seed)
        options = [f"-max_total_time={round(60 * arguments.minutes)}", "-rss_limit_mb=3000", "-timeout=20"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: target.try_bytes(data, folder))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
