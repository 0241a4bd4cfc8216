"""Find, inspect, convert, verify and publish CCOP and MoCo v2 networks."""

from __future__ import annotations

from collections.abc import Sequence

from .console import Command, run_program
from .settings import ConvertSettings, InfoSettings, ListSettings, PublishSettings, VerifySettings

EXIT_DIFFERENT = 1


def _list(settings: ListSettings) -> None:
    from .reports import print_registry

    print_registry()


def _info(settings: InfoSettings) -> None:
    from .reports import print_description
    from .sources.resolve import resolve

    print_description(resolve(settings.weights, settings.backbone))


def _convert(settings: ConvertSettings) -> None:
    from .formats.conversion import convert
    from .sources.resolve import resolve

    done = convert(resolve(settings.weights, settings.backbone), settings.to, settings.out)
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
