"""What data a number is of: a digest over names and contents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ccop_hub.formats.checkpoint import file_digest


def files_digest(root: Path, files: Iterable[Path]) -> str:
    """`sha256:` + hex digest over every file's path below `root` and its content, in path order.

    Where the folder lies does not matter; a renamed, added, removed or altered file does.
    """
    named = sorted((path.relative_to(root).as_posix(), path) for path in files)
    with ThreadPoolExecutor() as pool:
        contents = pool.map(lambda item: file_digest(item[1]), named)
        total = hashlib.sha256()
        for (name, _), content in zip(named, contents, strict=True):
            total.update(f"{name}\0{content}\n".encode())
    return f"sha256:{total.hexdigest()}"
