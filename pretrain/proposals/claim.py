"""Claim an output folder for a set of proposals, or refuse one that contains others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ccop_hub.errors import UserError
from ccop_hub.files import file_digest
from ccop_hub.image_sources.stored_images import ImageSource
from ccop_hub.proposals.shards import MANIFEST, Manifest, settings_digest, shard_paths
from ccop_hub.saved_settings import save_settings

from ..settings import ProposalSettings
from . import fast_search
from .ledger import PARTS, remove_parts
from .opencv_search import load_opencv, load_ximgproc
from .publication import finish_publication

SETTINGS = "settings.yaml"


def claim(settings: ProposalSettings, source: ImageSource) -> Manifest:
    """Claim the existing folder `out` for these proposals, or resume an earlier run with the same settings.

    A different version of OpenCV or Pillow does not count as a change of settings, so that an upgrade does not discard
    hours of work. The manifest keeps the versions of the first run.

    Returns:
        The manifest, without totals.

    Raises:
        UserError: the folder contains proposals with other settings.
    """
    out = settings.out
    manifest = _manifest(settings, source)
    if settings.shard is None:
        finish_publication(out)
    # A run without shards has the folder to itself, so no other process can be about to write rows.
    failed = settings.shard is None and not _holds_rows(out)
    if settings.overwrite or failed:
        for path in shard_paths(out):
            path.unlink()
        remove_parts(out)
        (out / MANIFEST).unlink(missing_ok=True)
    if (out / MANIFEST).exists():
        if not settings.resume:
            raise UserError(
                f"{out} already contains proposals; remove --no-resume to resume them, or add --overwrite to start over"
            )
        there = Manifest.read(out)
        _require_same_settings(out, there, manifest)
        manifest = dataclasses.replace(manifest, versions=there.versions)
    else:
        manifest.write(out)
    save_settings(settings, out / SETTINGS)
    return manifest


def _holds_rows(out: Path) -> bool:
    """Return whether the folder contains any proposals. A run that failed at startup leaves none and can be retried."""
    return bool(shard_paths(out)) or any((out / PARTS).glob("*/*.parquet"))


def _manifest(settings: ProposalSettings, source: ImageSource) -> Manifest:
    made_with: dict[str, Any] = {"mode": settings.mode, "max_side": settings.max_side}
    made_with |= {"keep": settings.keep, "seed": settings.seed}
    versions = {"pillow": metadata.version("pillow")}
    if settings.from_coco is not None:
        made_with = {"from_coco": _digest_of(settings.from_coco), "keep": settings.keep}
    elif settings.engine == "fast":
        made_with = {"engine": "fast", "engine_version": fast_search.VERSION, **made_with}
        versions |= {"numba": metadata.version("numba"), "opencv": load_opencv().__version__}
    else:
        # Omit the engine, to keep the digest of proposals computed when OpenCV was the only one.
        versions["opencv"] = load_ximgproc().__version__
    return Manifest(
        root=source.name,
        images=len(source),
        listing=source.digest,
        settings=made_with,
        settings_digest=settings_digest(made_with),
        versions=versions,
    )


def _digest_of(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); give a COCO JSON file") from None


def _require_same_settings(out: Path, there: Manifest, wanted: Manifest) -> None:
    if there.settings_digest == wanted.settings_digest:
        return
    old_settings, new_settings = _with_engine(there.settings), _with_engine(wanted.settings)
    names = dict.fromkeys([*new_settings, *old_settings])
    pairs = [(name, old_settings.get(name), new_settings.get(name)) for name in names]
    differences = ", ".join(f"{name} {old} not {new}" for name, old, new in pairs if old != new)
    raise UserError(
        f"{out} contains proposals with other settings ({differences}); add --overwrite to replace them, or give "
        "another "
        "--out"
    )


def _with_engine(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add the engine's name to the settings of a manifest; boxes imported from a COCO JSON have none."""
    return dict(settings) if "from_coco" in settings else {"engine": "opencv", **settings}
