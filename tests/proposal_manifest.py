"""The manifest of a small, complete folder of proposals."""

from typing import Any

from ccop_hub.proposals.shards import FORMAT_VERSION


def complete_manifest(digest: str) -> dict[str, Any]:
    """Return the contents of `manifest.json` for two images with four boxes.

    Args:
        digest: digest of the listing and of the settings.
    """
    return {
        "root": "a",
        "images": 2,
        "listing": digest,
        "settings": {"mode": "fast", "keep": 10},
        "settings_digest": digest,
        "versions": {"numpy": "2"},
        "skipped": 0,
        "boxes": 4,
        "empty": 0,
        "complete": True,
        "format_version": FORMAT_VERSION,
    }
