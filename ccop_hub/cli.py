"""Find, inspect, convert, verify and publish CCOP and MoCo v2 networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import tasks
from .console import Command, next_step, run_program
from .markup import visible
from .regular_files import read_text
from .settings import ConvertSettings, EmbedSettings, InfoSettings, ListSettings, PublishSettings, VerifySettings

if TYPE_CHECKING:
    from .description import Description
    from .embedding.run import Embedded
    from .formats.conversion import Converted
    from .formats.onnx_file import OnnxModel
    from .publishing.publish import Published
    from .publishing.verification import Verification

EXIT_DIFFERENT = 1
"""Exit code of `verify` when the weights have changed since export."""


def _list(_: ListSettings) -> None:
    """Do nothing: the registry is static."""


def _show_list(_: None, __: ListSettings) -> None:
    from .reports import print_registry
    from .sources.registry import DEFAULTS

    print_registry()
    next_step("ccop-hub", "info", next(iter(DEFAULTS.values())))


def _list_document(_: None, __: ListSettings) -> list[dict[str, Any]]:
    from .sources.registry import DEFAULTS, REGISTRY

    entries = {name: dataclasses.asdict(entry) for name, entry in REGISTRY.items()}
    return [
        {"name": name, "default": name in DEFAULTS.values(), "backbone": entry.pop("arch"), **entry}
        for name, entry in entries.items()
    ]


def _show_info(found: Description, settings: InfoSettings) -> None:
    from .reports import print_description

    print_description(found)
    backbone = () if settings.backbone is None else ("--backbone", settings.backbone)
    next_step("ccop-hub", "embed", "IMAGES", "--weights", settings.weights, *backbone, "--out", "features.npy")


def _info_document(found: Description, _: InfoSettings) -> dict[str, Any]:
    return dataclasses.asdict(found)


def _show_conversion(done: Converted | OnnxModel, settings: ConvertSettings) -> None:
    from .formats.conversion import Converted

    if not isinstance(done, Converted):
        outputs = ", ".join(f"{name} ({channels})" for name, channels in done.outputs.items())
        print(f"{visible(done.path)}: ONNX opset {done.opset}; images (N, 3, H, W), any N, H and W -> {outputs}")
        print(f"features differ by at most {done.largest_difference:.2g} between ONNX Runtime and PyTorch")
        next_step("ccop-hub", "verify", done.path)
        return
    print(f"{done.path}: {done.tensors} tensors, equal when read back; features differ by {done.largest_difference:g}")
    if done.left_out:
        print(f"not written, because the format does not support them: {', '.join(done.left_out)}")
    if done.config is not None:
        print(f"{done.config}: merge this file into the detector's configuration; without it, the features are wrong")
        print(read_text(done.config), end="")
    next_step("ccop-hub", "info", done.path)


def _show_checks(found: Verification, settings: VerifySettings) -> int:
    from .reports import print_checks

    print_checks(found.checks)
    note = "" if found.passed else "do not use them: download or export them again"
    next_step("ccop-hub", "info", settings.weights, note=note)
    return _checks_code(found)


def _checks_document(found: Verification, _: VerifySettings) -> list[dict[str, Any]]:
    return [dataclasses.asdict(check) for check in found.checks]


def _checks_code(found: Verification) -> int:
    return 0 if found.passed else EXIT_DIFFERENT


def _show_published(published: Published, settings: PublishSettings) -> None:
    print(published.told)
    if settings.dry_run:
        next_step("ccop-hub", "publish", settings.run, "--repo", settings.repo, note="without --dry-run")
    else:
        revision = "" if settings.revision == "main" else f"@{settings.revision}"
        next_step("ccop-hub", "info", f"hf-hub:{published.repo}{revision}")


def _show_embedded(done: Embedded, settings: EmbedSettings) -> None:
    from .embedding.report import report

    report(done)


def _embedded_document(done: Embedded, _: EmbedSettings) -> dict[str, Any]:
    return done.document()


COMMANDS = [
    Command("list", "List the published weights.", ListSettings, _list, show=_show_list, document=_list_document),
    Command(
        "info",
        "Describe weights and how to load them.",
        InfoSettings,
        tasks.info,
        ("weights",),
        show=_show_info,
        document=_info_document,
    ),
    Command(
        "convert",
        "Convert weights to another library's format.",
        ConvertSettings,
        tasks.convert,
        ("weights",),
        show=_show_conversion,
    ),
    Command(
        "embed",
        "Compute features of images or boxes, and write them to a file.",
        EmbedSettings,
        tasks.embed,
        ("images",),
        common=("features", "boxes", "resize", "image_size", "batch_size", "workers", "accelerator", "overwrite"),
        show=_show_embedded,
        document=_embedded_document,
        takes_long=True,
    ),
    Command(
        "verify",
        "Check that weights have not changed since they were exported.",
        VerifySettings,
        tasks.verify,
        ("weights",),
        show=_show_checks,
        document=_checks_document,
        code=_checks_code,
    ),
    Command(
        "publish",
        "Push an exported network to the Hugging Face Hub.",
        PublishSettings,
        tasks.publish,
        ("run",),
        show=_show_published,
    ),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code (2 for invalid input, 1 if `verify` finds a difference)."""
    return run_program("ccop-hub", __doc__ or "", COMMANDS, argv)
