"""Find, inspect, convert, verify and publish CCOP and MoCo v2 networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .console import Command, run_program
from .settings import ConvertSettings, InfoSettings, ListSettings, PublishSettings, VerifySettings

if TYPE_CHECKING:
    from .formats.checkpoint import Weights
    from .formats.conversion import Converted
    from .publishing.verification import Check

EXIT_DIFFERENT = 1
"""Exit code of `verify` where weights are not what they were."""


def _list(_: ListSettings) -> None:
    """The registry is data: there is nothing to compute."""


def _show_list(_: None, __: ListSettings) -> None:
    from .reports import print_registry

    print_registry()


def _list_document(_: None, __: ListSettings) -> list[dict[str, Any]]:
    from .sources.registry import DEFAULTS, REGISTRY

    entries = {name: dataclasses.asdict(entry) for name, entry in REGISTRY.items()}
    return [
        {"name": name, "default": name in DEFAULTS.values(), "backbone": entry.pop("arch"), **entry}
        for name, entry in entries.items()
    ]


def _info(settings: InfoSettings) -> Weights:
    from .sources.resolve import resolve

    return resolve(settings.weights, settings.backbone)


def _show_info(weights: Weights, _: InfoSettings) -> None:
    from .reports import print_description

    print_description(weights)


def _info_document(weights: Weights, _: InfoSettings) -> dict[str, Any]:
    from .description import describe

    return {
        "name": weights.name,
        "backbone": weights.arch,
        "source": weights.source,
        "digest": weights.digest,
        "format": weights.format,
        "parts": list(weights.parts),
        "unused": list(weights.unused),
        "facts": dict(weights.facts),
        **dataclasses.asdict(describe(weights)),
    }


def _convert(settings: ConvertSettings) -> Converted:
    from .formats.conversion import convert, require_target
    from .sources.resolve import resolve

    require_target(settings.to, settings.out, settings.overwrite)
    return convert(resolve(settings.weights, settings.backbone), settings.to, settings.out, settings.overwrite)


def _show_conversion(done: Converted, _: ConvertSettings) -> None:
    print(f"{done.path}: {done.tensors} tensors, read back equal; features differ by {done.largest_difference:g}")
    if done.left_out:
        print(f"left out, because the format has no place for them: {', '.join(done.left_out)}")
    if done.config is not None:
        print(f"{done.config}: merge it into the detector's configuration; without it the features are wrong")
        print(done.config.read_text(encoding="utf-8"), end="")


def _verify(settings: VerifySettings) -> list[Check]:
    from .publishing.verification import verify
    from .sources.resolve import locate

    return verify(locate(settings.weights))


def _show_checks(checks: list[Check], _: VerifySettings) -> int:
    from .reports import print_checks

    print_checks(checks)
    return _checks_code(checks)


def _checks_document(checks: list[Check], _: VerifySettings) -> list[dict[str, Any]]:
    return [dataclasses.asdict(check) for check in checks]


def _checks_code(checks: list[Check]) -> int:
    return EXIT_DIFFERENT if any(check.passed is False for check in checks) else 0


def _publish(settings: PublishSettings) -> str:
    from .publishing.publish import publish

    return publish(settings)


def _show_text(text: str, _: PublishSettings) -> None:
    print(text)


COMMANDS = [
    Command("list", "List the published weights.", ListSettings, _list, show=_show_list, document=_list_document),
    Command(
        "info",
        "Describe a set of weights and how to load it.",
        InfoSettings,
        _info,
        ("weights",),
        show=_show_info,
        document=_info_document,
    ),
    Command(
        "convert",
        "Write weights in another library's format.",
        ConvertSettings,
        _convert,
        ("weights",),
        show=_show_conversion,
    ),
    Command(
        "verify",
        "Check that weights are what they were when exported.",
        VerifySettings,
        _verify,
        ("weights",),
        show=_show_checks,
        document=_checks_document,
        code=_checks_code,
    ),
    Command(
        "publish",
        "Push an exported network to the Hugging Face Hub.",
        PublishSettings,
        _publish,
        ("run",),
        show=_show_text,
    ),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code (2 for wrong input, 1 where `verify` found a difference)."""
    return run_program("ccop-hub", __doc__ or "", COMMANDS, argv)
