"""Download files from Google Drive with the `gdown` package."""

from __future__ import annotations

from pathlib import Path

from ..addresses import DRIVE_PREFIX
from ..errors import UserError, one_line
from .cache import Slot
from .reachability import unreachable


def fetch_drive(address: str, published: str | None = None) -> Path:
    """Return the file at `gdrive:ID`, from the cache or downloaded.

    Raises:
        UserError: `gdown` is missing, or Google Drive refuses the download. The message explains how to download the
            file manually.
    """
    identity = address.removeprefix(DRIVE_PREFIX)
    page = f"https://drive.google.com/file/d/{identity}/view"
    by_hand = f"open {page} in a browser, download the file and give its path"

    def download(path: Path) -> None:
        try:
            import gdown
        except ModuleNotFoundError:
            raise UserError(f"needs the package gdown: pip install 'ccop-hub[hub]', or {by_hand}") from None
        if (reason := unreachable(page)) is not None:
            raise UserError(f"cannot reach drive.google.com ({one_line(reason)}): check the network, or {by_hand}")
        try:
            gdown.download(id=identity, output=str(path), resume=True)
        except Exception as error:  # gdown raises its own, requests' and built-in exceptions on failed downloads
            told = one_line(error) or type(error).__name__
            raise UserError(f"Google Drive did not return the file ({told}): try again later, or {by_hand}") from None
        if not path.is_file():
            raise UserError(f"Google Drive did not return the file: try again later, or {by_hand}")

    return Slot.of(address, f"{identity}.pth", published).fetch(download)
