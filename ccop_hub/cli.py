"""Find, inspect, convert, verify and publish CCOP and MoCo v2 networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from .console import Command, run_program

EXIT_DIFFERENT = 1


@dataclasses.dataclass
class ListSettings:
    """Print the registry of published weights as a table."""


@dataclasses.dataclass
class InfoSettings:
    """Say what a set of weights is: source, digest, format, tensors by stage, parameters, FLOPs, how to load it.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION], https address, or random.
        arch: timm name of the backbone; needed for random weights.
    """

    weights: str
    arch: str | None = None


@dataclasses.dataclass
class ConvertSettings:
    """Write weights in another library's format, read them back and compare tensors and features.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION], https address, or random.
        to: safetensors (a folder), torchvision (.pth), timm (a folder), detectron2 (.pkl or .pth), detectron2-c4 (.pkl
            or .pth) or mmdetection (.pth).
        out: file or folder to write.
        arch: timm name of the backbone; needed for random weights.
    """

    weights: str
    to: str
    out: Path
    arch: str | None = None


@dataclasses.dataclass
class VerifySettings:
    """Recompute digests, check shapes and finiteness, and compare features with the fingerprint of the export.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION] or https address.
    """

    weights: str


@dataclasses.dataclass
class PublishSettings:
    """Push an exported network to the Hugging Face Hub, with a model card, in every format that people load.

    Args:
        run: folder of a run, or of an exported checkpoint.
        repo: ORG/NAME on the Hub.
        private: whether only you may see a repository that is created.
        dry_run: write the same files to a folder and push nothing.
        out: folder of the dry run; RUN/published if not given.
        results: result.json files of ccop-eval to put into the card.
        licence: SPDX id of the weights' licence, as the Hub spells it (lower case).
        revision: branch to push to.
    """

    run: Path
    repo: str
    private: bool = False
    dry_run: bool = False
    out: Path | None = None
    results: list[Path] = dataclasses.field(default_factory=list)
    licence: str = "apache-2.0"
    revision: str = "main"


def _list(settings: ListSettings) -> None:
    from .reports import print_registry

    print_registry()


def _info(settings: InfoSettings) -> None:
    from .reports import print_description
    from .sources.resolve import resolve

    print_description(resolve(settings.weights, settings.arch))


def _convert(settings: ConvertSettings) -> None:
    from .formats.conversion import convert
    from .sources.resolve import resolve

    done = convert(resolve(settings.weights, settings.arch), settings.to, settings.out)
    print(f"{done.path}: {done.tensors} tensors, read back equal; features differ by {done.largest_difference:g}")
    if done.left_out:
        print(f"left out, since the format has no place for it: {', '.join(done.left_out)}")


def _verify(settings: VerifySettings) -> int:
    from .publishing.verification import verify
    from .reports import print_checks
    from .sources.resolve import locate

    return 0 if print_checks(verify(locate(settings.weights))) else EXIT_DIFFERENT


def _publish(settings: PublishSettings) -> None:
    from .publishing.publish import publish

    print(publish(settings))


COMMANDS = [
    Command("list", "Print the registry of published weights.", ListSettings, _list),
    Command("info", "Say what a set of weights is and how to load it.", InfoSettings, _info, ("weights",)),
    Command("convert", "Write weights in another library's format.", ConvertSettings, _convert, ("weights",)),
    Command("verify", "Check weights against what they were when exported.", VerifySettings, _verify, ("weights",)),
    Command("publish", "Push an exported network to the Hugging Face Hub.", PublishSettings, _publish, ("run",)),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code (2 for wrong input, 1 where `verify` found a difference)."""
    return run_program("ccop-hub", __doc__ or "", COMMANDS, argv)
