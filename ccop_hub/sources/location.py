"""Find the file or folder of weights by name, path or URL, without reading it."""

from __future__ import annotations

import difflib
from pathlib import Path

from ..addresses import DRIVE_PREFIX, HF_PREFIX, PACKAGE_PREFIX
from ..errors import UserError
from ..files import has_digest
from ..formats.weights_files import find_weights_file
from ..plain_resnets import HUB_ARCHITECTURES
from ..redaction import redact
from . import registry

RANDOM = "random"

PACKAGED = Path(__file__).parents[1] / "weights"
"""Weights that are part of this package: a checkpoint folder each, with its model card, settings and results."""


def locate(name: str) -> Path:
    """Return the file or folder for any name except `random`, downloaded if necessary and with its digest verified.

    Raises:
        UserError: nothing has this name, the download fails, or its digest is wrong. The message says what to do.
    """
    # The clients of the download sources take a while to import.
    if name in registry.REGISTRY:
        return _fetch_published(name, registry.entry(name))
    if name.startswith(HF_PREFIX):
        from .huggingface import fetch_hf

        return fetch_hf(name)
    if "://" in name:
        from .download import fetch_url

        return fetch_url(name)
    path = Path(name).expanduser()
    if path.exists():
        return path
    if path.is_symlink():
        raise UserError(f"{redact(name)} is a broken link: download the weights again, or give their file")
    if name == RANDOM:
        raise UserError("'random' has no file to verify: give a file or folder of weights")
    raise UserError(_not_found(name))


def _fetch_published(name: str, entry: registry.Entry) -> Path:
    if entry.url.startswith(PACKAGE_PREFIX):
        return _packaged(name, entry)
    from . import download, google_drive

    try:
        if entry.url.startswith(DRIVE_PREFIX):
            return google_drive.fetch_drive(entry.url, entry.digest)
        return download.fetch_url(entry.url, entry.digest)
    except UserError as error:
        error.args = (f"{name}: {error}",)
        raise


def _packaged(name: str, entry: registry.Entry) -> Path:
    folder = PACKAGED / entry.url.removeprefix(PACKAGE_PREFIX)
    file = find_weights_file(folder)
    if entry.digest is not None and not has_digest(file, entry.digest):
        raise UserError(f"{name}: {file} does not have the digest {entry.digest}: reinstall ccop-hub")
    return folder


def _not_found(name: str) -> str:
    close = difflib.get_close_matches(name, list(registry.REGISTRY), n=1)
    meant = f", did you mean {close[0]}?" if close else ""
    if name in HUB_ARCHITECTURES:
        meant = f" ({name} is an architecture)"
    return (
        f"no weights at {redact(name)!r}{meant}; give a registry name ({', '.join(registry.REGISTRY)}), a file or "
        f"folder, hf-hub:ORG/NAME[@REVISION], an https address, or {RANDOM}"
    )
