"""Download checkpoints from the Hugging Face Hub: `hf-hub:ORG/NAME[@REVISION]`."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..addresses import HF_PREFIX
from ..errors import UserError, one_line
from ..files import file_digest
from ..formats.timm_folder import TIMM_CONFIG_FILE, TIMM_FILES
from ..formats.weights_files import FACTS_FILE, WEIGHTS_FILES
from ..redaction import redact
from .cache import is_offline
from .reachability import unreachable

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
"""Valid organisation and repository names on the Hub (huggingface_hub's `validate_repo_id`)."""

_ADDRESS = re.compile(r"(?P<repo>[^/@\s]+/[^/@\s]+)(?:@(?P<revision>\S+))?")


def endpoint() -> str:
    """Return the URL of the Hub: `HF_ENDPOINT`, else the public one."""
    return os.environ.get("HF_ENDPOINT") or ENDPOINT


def require_repository(name: str) -> None:
    """Check that a name is a valid repository name on the Hub.

    Raises:
        UserError: the name is invalid; the message says why.
    """
    parts = name.split("/")
    if len(parts) != 2:
        raise UserError(f"{one_line(name)!r} is not a repository name: give ORG/NAME")
    for part in parts:
        if not _NAME.fullmatch(part) or ".." in part or "--" in part or part.endswith((".git", ".ipynb")):
            raise UserError(
                f"{one_line(name)!r} is not a repository name: give ORG/NAME, each of at most 96 letters, digits, "
                "'-', '_' and '.', without '..' or '--', and not ending in '.git'"
            )


def fetch_hf(address: str) -> Path:
    """Return the weights file of a repository, from the cache or downloaded along with its metadata.

    Looks for, in order: this project's file of backbone and pyramid with its facts, timm's safetensors file with its
    configuration, and timm's older PyTorch file.

    Args:
        address: `hf-hub:ORG/NAME` or `hf-hub:ORG/NAME@REVISION` (branch, tag or commit).

    Raises:
        UserError: the repository, revision or file does not exist or is not accessible, or there is no network. The
            message says what to do.
    """
    found = _ADDRESS.fullmatch(address.removeprefix(HF_PREFIX))
    if found is None:
        raise UserError(
            f"{address!r} is not of the form {HF_PREFIX}ORG/NAME or {HF_PREFIX}ORG/NAME@REVISION: correct it"
        )
    repo, revision = found["repo"], found["revision"]
    require_repository(repo)
    # Without a network, the client would wait through all its retries: probe once, and fall back to the cache.
    local = is_offline() or unreachable(endpoint()) is not None
    absent: LocalEntryNotFoundError | None = None
    for name in (*WEIGHTS_FILES, *TIMM_FILES):
        try:
            file = _fetch_file(repo, name, revision, local)
        except LocalEntryNotFoundError as error:
            absent = error
            continue
        except EntryNotFoundError:
            continue
        with contextlib.suppress(EntryNotFoundError):
            _fetch_file(repo, FACTS_FILE if name in WEIGHTS_FILES else TIMM_CONFIG_FILE, revision, local)
        _check_content(file)
        return file
    if absent is not None:
        reason = "HF_HUB_OFFLINE is set" if is_offline() else f"{redact(endpoint())} cannot be reached"
        raise UserError(f"{address} is not cached and {reason}: connect, or give the path of a downloaded copy")
    raise UserError(
        f"{address} contains none of {', '.join((*WEIGHTS_FILES, *TIMM_FILES))}: give the path of its weights file"
    )


def _fetch_file(repo: str, name: str, revision: str | None, local: bool) -> Path:
    try:
        return Path(hf_hub_download(repo, name, revision=revision, local_files_only=local, endpoint=endpoint()))
    except GatedRepoError:
        raise UserError(f"{HF_PREFIX}{repo} is gated: accept its terms on the Hub, then run `hf auth login`") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"no repository {HF_PREFIX}{repo}, or it is private: check the name, or run `hf auth login` first"
        ) from None
    except RevisionNotFoundError:
        raise UserError(
            f"{HF_PREFIX}{repo} has no revision {revision!r}: give one of its branches, tags or commits"
        ) from None
    except HFValidationError as error:
        raise UserError(f"{HF_PREFIX}{repo} is not a repository name: {error}") from None
    except EntryNotFoundError:
        raise
    except HfHubHTTPError as error:
        code = error.response.status_code
        advice = "run `hf auth login` with a token that may read it" if code in (401, 403) else "try later"
        raise UserError(f"{HF_PREFIX}{repo} cannot be read (HTTP {code}): {advice}") from None


def _check_content(file: Path) -> None:
    """Verify the digest of a large file, which the Hub's cache names by its SHA-256."""
    blob = file.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and file_digest(blob) != f"sha256:{blob.name}":
        raise UserError(f"{blob} is damaged (its digest differs from its name): delete it and try again")
