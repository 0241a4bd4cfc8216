"""The tasks behind the commands and Python functions of `ccop-hub`.

Each task imports its dependencies when called, so that `--help` and `import ccop_hub` stay fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .settings import ConvertSettings, EmbedSettings, InfoSettings, PublishSettings, VerifySettings

if TYPE_CHECKING:
    from .description import Description
    from .embedding.run import Embedded
    from .formats.conversion import Converted
    from .formats.onnx_file import OnnxModel
    from .publishing.publish import Published
    from .publishing.verification import Verification


def info(settings: InfoSettings) -> Description:
    """Describe a set of weights."""
    from .description import describe
    from .sources.summary import summarise

    return describe(summarise(settings.weights, settings.backbone))


def convert(settings: ConvertSettings) -> Converted | OnnxModel:
    """Write weights in another format and verify the output."""
    from .formats.conversion import convert, require_file, require_target
    from .sources.resolve import resolve

    if settings.to == "onnx":
        from .formats.onnx_file import SUFFIX, write_onnx

        require_file(settings.to, settings.out, (SUFFIX,), settings.overwrite)
        return write_onnx(resolve(settings.weights, settings.backbone), settings.out, settings.outputs)
    require_target(settings.to, settings.out, settings.overwrite)
    return convert(resolve(settings.weights, settings.backbone), settings.to, settings.out, settings.overwrite)


def verify(settings: VerifySettings) -> Verification:
    """Check that weights have not changed since export."""
    from .publishing.verification import Verification, verify
    from .sources.location import locate

    return Verification(tuple(verify(locate(settings.weights))))


def publish(settings: PublishSettings) -> Published:
    """Push an exported network to the Hub, or write the files in a dry run."""
    from .publishing.publish import publish

    return publish(settings)


def embed(settings: EmbedSettings) -> Embedded:
    """Write features of images or boxes."""
    from .embedding.run import run

    return run(settings)
