"""Push an exported network to the Hugging Face Hub."""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
)

from ..bounded_yaml import dump_yaml
from ..errors import UserError, one_line
from ..files import check_folder, is_temporary, make_folder, scratch_folder, write_atomically
from ..formats.checkpoint import Weights, read_checkpoint
from ..formats.conversion import convert
from ..formats.detectron2_config import detectron2_config
from ..formats.timm_folder import TIMM_CONFIG_FILE, TIMM_WEIGHTS_FILE
from ..formats.weights_files import FACTS_FILE, WEIGHTS_FILES, find_weights_file
from ..locks import LOCK_FILE, folder_lock
from ..redaction import redact
from ..regular_files import read_regular
from ..sources.cache import is_offline
from ..sources.huggingface import endpoint, require_repository
from ..sources.reachability import unreachable
from .evaluations import Evaluation, read_evaluation
from .licence import licence_of
from .model_card import DETECTRON2_FILE, is_plain, model_card
from .verification import verify

if TYPE_CHECKING:
    from ..settings import PublishSettings

ATTEMPTS = 4
"""Number of attempts to push; uploaded files are not sent again."""

FIRST_WAIT = 1.0
"""Seconds to wait before the second attempt; doubles with each further attempt."""

CARD_FILE = "README.md"
SETTINGS_FILE = "settings.yaml"

_LARGEST_EXPORT = 1 << 32
"""Maximum size in bytes of an exported file."""

_TREE = {
    *(FACTS_FILE, *WEIGHTS_FILES, TIMM_CONFIG_FILE, TIMM_WEIGHTS_FILE, SETTINGS_FILE, CARD_FILE, "results"),
    *(DETECTRON2_FILE, str(Path(DETECTRON2_FILE).with_suffix(".yaml"))),
}
"""Names of everything that a dry run writes."""

_BUSY = (409, 412, 429, 500, 502, 503, 504)
"""HTTP status codes worth a retry: a concurrent commit, or a busy server."""

_NO_ANSWER: tuple[type[Exception], ...] = (HTTPError, OSError, RuntimeError)
"""Exceptions of the Hub's HTTP client (`HTTPError` is its own) and upload threads when a connection breaks."""

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Published:
    """Result of `publish`.

    Attributes:
        repo: repository on the Hub, ORG/NAME.
        files: paths of the files in the repository.
        folder: output folder of a dry run; None if the files were pushed.
        told: one-line summary.
    """

    repo: str
    files: tuple[str, ...]
    folder: Path | None
    told: str


def publish(settings: PublishSettings) -> Published:
    """Check an exported network, write the files to publish, and push them.

    Nothing is pushed unless all checks pass.

    Args:
        settings: settings of the command.

    Returns:
        The files written or pushed.

    Raises:
        UserError: the export fails a check, a result belongs to other weights, another process is writing to the
            output folder, or the Hub rejects the push.
    """
    require_repository(settings.repo)
    folder = settings.out or settings.run / "published"
    if settings.dry_run:
        _require_own(folder)
    else:
        _require_server()
    weights = _checked_export(settings.run)
    licence = licence_of(weights.facts, settings.licence)
    evaluations = [read_evaluation(path, weights.digest) for path in settings.results]
    if settings.dry_run:
        make_folder(folder)
        with folder_lock(folder):
            _remove_unfinished(folder)
            with scratch_folder(folder) as scratch:
                tree = scratch / folder.name
                names = _relative(write_tree(tree, weights, settings.repo, licence, evaluations), tree)
                _move(tree, names, folder)
        told = f"wrote {len(names)} files to {folder}; nothing was pushed"
        return Published(settings.repo, names, folder, told)
    with tempfile.TemporaryDirectory() as scratch:
        files = write_tree(Path(scratch), weights, settings.repo, licence, evaluations)
        told = _push(Path(scratch), settings, len(files))
        return Published(settings.repo, _relative(files, Path(scratch)), None, told)


def _relative(files: Sequence[Path], folder: Path) -> tuple[str, ...]:
    return tuple(path.relative_to(folder).as_posix() for path in files)


def write_tree(
    folder: Path, weights: Weights, repo: str, licence: str, evaluations: Sequence[Evaluation]
) -> list[Path]:
    """Write the files to publish; output is deterministic.

    Returns:
        The paths of the exported files, the timm and Detectron2 versions, the settings, the results and the model card.
    """
    make_folder(folder)
    exported = Path(weights.source)
    for name in (exported.name, FACTS_FILE):
        write_atomically(folder / name, read_regular(exported.with_name(name), _LARGEST_EXPORT))
    convert(weights, "timm", folder, overwrite=True)
    if is_plain(weights):
        done = convert(weights, "detectron2", folder / DETECTRON2_FILE, overwrite=True)
        if done.config is not None:
            # Use the bare file name, since the folder is temporary.
            write_atomically(done.config, detectron2_config(weights, weights.parts, Path(DETECTRON2_FILE)))
    settings = dump_yaml(weights.facts.get("settings", {}), sort_keys=True)
    write_atomically(folder / SETTINGS_FILE, settings)
    for number, evaluation in enumerate(evaluations, start=1):
        make_folder(folder / "results")
        name = re.sub(r"[^\w.-]+", "-", f"{number}-{evaluation.task}-{evaluation.protocol}")
        write_atomically(folder / "results" / f"{name}.json", evaluation.content)
    card = model_card(weights, repo, licence, evaluations)
    write_atomically(folder / CARD_FILE, str(card))
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _move(tree: Path, names: Sequence[str], folder: Path) -> None:
    """Move the finished files to their final places, the card last."""
    for name in sorted(names, key=lambda name: (name == CARD_FILE, name)):
        make_folder((folder / name).parent)
        (tree / name).replace(folder / name)


def _remove_unfinished(folder: Path) -> None:
    """Remove the files of a dry run that was killed while moving them into place."""
    if _is_unfinished(folder):
        shutil.rmtree(folder / "results", ignore_errors=True)
        for name in _TREE:
            if name != "results":
                (folder / name).unlink(missing_ok=True)


def _is_unfinished(folder: Path) -> bool:
    """Whether the folder contains nothing but what a killed dry run leaves: some of its files and a scratch folder."""
    there = [path for path in folder.iterdir() if path.name != LOCK_FILE]
    scratch = [path for path in there if is_temporary(path) and path.is_dir()]
    return bool(scratch) and {path.name for path in there if path not in scratch} <= _TREE


def _require_own(folder: Path) -> None:
    """Reject a folder with other contents, whose README.md would be overwritten."""
    check_folder(folder)
    names = {path.name for path in folder.iterdir()} - {LOCK_FILE} if folder.is_dir() else set()
    if names and not {CARD_FILE, FACTS_FILE, SETTINGS_FILE} <= names and not _is_unfinished(folder):
        raise UserError(f"{folder} holds something else than an earlier dry run: give --out a new or an empty folder")


def _require_server() -> None:
    """Fail early, before the checks, if the Hub is unreachable."""
    if is_offline():
        raise UserError("HF_HUB_OFFLINE is set: unset it to publish, or use --dry-run")
    reason = unreachable(endpoint())
    if reason is not None:
        raise UserError(f"{endpoint()} cannot be reached ({reason}): check the network, or use --dry-run")


def _checked_export(run: Path) -> Weights:
    checks = verify(run)
    failed = [f"{check.name}: {check.told}" for check in checks if not check.passed]
    if failed:
        raise UserError(f"{run} fails its checks, so nothing was pushed ({'; '.join(failed)}): export it again")
    return dataclasses.replace(read_checkpoint(run), source=str(find_weights_file(run)))


def _push(folder: Path, settings: PublishSettings, count: int) -> str:
    api = HfApi(endpoint=endpoint())
    where = redact(f"{api.endpoint}/{settings.repo}")
    try:
        _persist(lambda: api.create_repo(settings.repo, private=settings.private, exist_ok=True))
        if settings.revision != "main":
            _persist(lambda: api.create_branch(settings.repo, branch=settings.revision, exist_ok=True))
        before = _head(api, settings)
        _persist(lambda: _commit(api, folder, settings))
        after = _head(api, settings)
    except HfHubHTTPError as error:
        raise _explained(error, settings.repo) from None
    except LocalTokenNotFoundError:
        raise UserError("no Hugging Face token: run `hf auth login` with a token with write access") from None
    except HFValidationError as error:
        raise UserError(f"{settings.repo!r} is not a valid repository name ({error}): give ORG/NAME") from None
    except _NO_ANSWER as error:
        told = one_line(error)
        raise UserError(
            f"the push to {where} did not finish ({told}): rerun the command to resume; finished files are not sent "
            "again"
        ) from None
    if before == after:
        return f"{where} already has these {count} files: no new commit"
    return f"pushed {count} files to {where}, commit {after}"


def _commit(api: HfApi, folder: Path, settings: PublishSettings) -> None:
    """Commit all files at once, skipping those that are already in the repository."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    api.create_commit(
        settings.repo,
        [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files],
        commit_message=f"Publish {settings.run.resolve().name}",
        revision=settings.revision,
    )


def _head(api: HfApi, settings: PublishSettings) -> str | None:
    return _persist(lambda: api.model_info(settings.repo, revision=settings.revision).sha)


def _persist(request: Callable[[], _T]) -> _T:
    """Retry an idempotent request while the server is busy or the connection breaks."""
    wait = FIRST_WAIT
    for left in range(ATTEMPTS - 1, -1, -1):
        try:
            return request()
        except HfHubHTTPError as error:
            if left == 0 or error.response.status_code not in _BUSY:
                raise
        except _NO_ANSWER:
            if left == 0:
                raise
        time.sleep(wait)
        wait *= 2
    raise AssertionError("unreachable")


def _explained(error: HfHubHTTPError, repo: str) -> UserError:
    code = error.response.status_code
    if code == 401:
        return UserError(f"the Hub rejected the token (HTTP 401): run `hf auth login`, or check the name {repo}")
    if code == 403:
        return UserError(f"no write access to {repo} (HTTP 403): use a token with write access, or your own namespace")
    if code == 404:
        return UserError(
            f"{repo} was not found on the Hub (HTTP 404): check the organisation's name and your access to it"
        )
    if code in _BUSY:
        return UserError(f"the Hub was busy (HTTP {code}) {ATTEMPTS} times: run the same command again later")
    return UserError(f"the Hub refused {repo} (HTTP {code}): {one_line(error.server_message or '')}")
