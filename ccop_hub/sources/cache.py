"""Cache of downloaded weights: one folder per URL, with a recorded digest and a lock."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import UserError
from ..files import bytes_digest, file_digest, has_digest, make_folder, write_atomically
from ..locks import LOCK_FILE, waiting_lock
from ..redaction import redact
from ..regular_files import read_json

logger = logging.getLogger(__name__)

ROOT_VARIABLE = "CCOP_CACHE"
DOWNLOADS_VARIABLE = "CCOP_HUB_CACHE"
RECORD_FILE = "record.json"


def cache_root() -> Path:
    """Return the cache folder: `$CCOP_CACHE`, else `ccop-hub` in the user's cache folder.

    Has separate subfolders for downloads, computed features and prepared data sets.
    """
    if os.environ.get(ROOT_VARIABLE):
        return Path(os.environ[ROOT_VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ccop-hub"


def downloads_folder() -> Path:
    """Return the download folder: `$CCOP_HUB_CACHE`, else `downloads` in the cache root."""
    if os.environ.get(DOWNLOADS_VARIABLE):
        return Path(os.environ[DOWNLOADS_VARIABLE]).expanduser()
    return cache_root() / "downloads"


def is_offline() -> bool:
    """Whether network access is disabled (`HF_HUB_OFFLINE`, interpreted as in `huggingface_hub`)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


@dataclasses.dataclass(frozen=True)
class Slot:
    """Cache folder of one URL.

    Attributes:
        address: URL or `gdrive:ID` to download.
        file: path of the complete file.
        published: digest published by the authors (`md5:` or `sha256:` + leading hex digits), or None.
    """

    address: str
    file: Path
    published: str | None

    @classmethod
    def of(cls, address: str, name: str, published: str | None) -> Slot:
        """Return the slot of a URL in the current cache."""
        folder = downloads_folder() / bytes_digest(address.encode()).partition(":")[2][:16]
        return cls(address, folder / name, published)

    @property
    def partial(self) -> Path:
        """Path of an incomplete download."""
        return self.file.with_name(f"{self.file.name}.partial")

    def fetch(self, download: Callable[[Path], None]) -> Path:
        """Return the file from the cache, or call `download(path)`; verifies the digest in both cases.

        If several processes need the file, one downloads it and the others wait. The digest of the first download is
        recorded, and any later download must match it, whether or not the authors published a digest.

        Raises:
            UserError: network access is disabled, or the digest does not match the published or recorded one.
        """
        make_folder(self.file.parent)
        with waiting_lock(self.file.with_name(LOCK_FILE), "downloads the same file"):
            recorded = self._recorded()
            if self.file.is_file() and recorded is not None:
                if file_digest(self.file) == recorded:
                    return self.file
                logger.warning("%s is not what was downloaded: fetching it again", self.file)
                self.file.unlink()
            if is_offline():
                raise UserError(
                    f"{redact(self.address)} is not cached and HF_HUB_OFFLINE is set: unset it, or download the "
                    "file elsewhere and give its path"
                )
            download(self.partial)
            digest = self._checked(recorded)
            self.partial.replace(self.file)
            if recorded is None:
                self._record(digest)
        return self.file

    def _recorded(self) -> str | None:
        record = self.file.with_name(RECORD_FILE)
        if not record.is_file():
            return None
        try:
            return str(read_json(record)["digest"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{record} is damaged: delete the folder {record.parent} and try again") from None

    def _record(self, digest: str) -> None:
        content = {"address": redact(self.address), "digest": digest, "published": self.published}
        write_atomically(self.file.with_name(RECORD_FILE), json.dumps(content, indent=2) + "\n")
        if self.published is None:
            logger.warning(
                "no digest was published for %s: recorded %s, a later download that differs will be refused",
                redact(self.address),
                digest,
            )

    def _checked(self, recorded: str | None) -> str:
        digest = file_digest(self.partial)
        wrong = None
        if recorded is not None and digest != recorded:
            wrong = f"has the digest {digest}, but {recorded} was recorded when it was first downloaded"
        elif self.published is not None and not has_digest(self.partial, self.published):
            wrong = f"does not have the published digest {self.published}"
        if wrong is not None:
            self.partial.unlink()
            raise UserError(f"the file at {redact(self.address)} {wrong}: do not use it; ask its publisher")
        return digest
