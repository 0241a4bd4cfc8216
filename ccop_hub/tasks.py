"""The tasks of `ccop-hub`: what its commands and its Python functions call.

Each imports what it needs when it is called, so that help texts and imports stay fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .settings import ConvertSettings, InfoSettings, PublishSettings, VerifySettings

if TYPE_CHECKING:
    from .description import Description
    from .formats.conversion import Converted
    from .publishing.publish import Published
    from .publishing.verification import Verification


def info(settings: InfoSettings) -> Description:
    """Describe weights."""
    from .description import describe
    from .sources.resolve import resolve

    return describe(resolve(settings.weights, settings.backbone))


def convert(settings: ConvertSettings) -> Converted:
    """Write weights in another format and check what was written."""
    from .formats.conversion import convert, require_target
    from .sources.resolve import resolve

    require_target(settings.to, settings.out, settings.overwrite)
    return convert(resolve(settings.weights, settings.backbone), settings.to, settings.out, settings.overwrite)


def verify(settings: VerifySettings) -> Verification:
    """Check weights against what they were when exported."""
    from .publishing.verification import Verification, verify
    from .sources.resolve import locate

    return Verification(tuple(verify(locate(settings.weights))))


def publish(settings: PublishSettings) -> Published:
    """Push an exported network to the Hub, or write what would be pushed."""
    from .publishing.publish import publish

    return publish(settings)
