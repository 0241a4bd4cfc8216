"""Optional packages, and how to install the missing ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import UserError

_OWN = ("ccop_hub", "ccop_pretrain", "ccop_eval")


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Report a package that the block cannot import as missing, with the extra of this distribution that includes it.

    Raises:
        UserError: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(_OWN):
            raise
        raise UserError(missing_package(error, extra)) from None


def missing_package(error: ModuleNotFoundError, extra: str) -> str:
    """Say which package is missing, and how to install it."""
    return f"needs the package {error.name!r}: pip install 'ccop-hub[{extra}]'"
