"""Verify that a checkpoint has not changed since export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..errors import UserError, one_line
from ..files import file_digest
from ..formats.checkpoint import Weights, read_checkpoint
from ..formats.fingerprint import TOLERANCE, differences
from ..formats.onnx_file import SUFFIX, verify_onnx
from ..formats.weights_files import FACTS_FILE, find_weights_file
from ..notebook import summary_html
from ..regular_files import read_json

FINGERPRINT_KEY = "fingerprint"


@dataclasses.dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: what was checked.
        passed: the outcome, or None if there was nothing to compare with.
        told: one-line explanation.
    """

    name: str
    passed: bool | None
    told: str


@dataclasses.dataclass(frozen=True)
class Verification:
    """Result of `verify`.

    Attributes:
        checks: all checks, in order.
    """

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all checks passed or had nothing to compare with."""
        return all(check.passed is not False for check in self.checks)

    def _repr_html_(self) -> str:
        words = {True: "ok", False: "different", None: "not checked"}
        return summary_html("verify", {check.name: f"{words[check.passed]} ({check.told})" for check in self.checks})


def verify(path: Path) -> list[Check]:
    """Check the digest, the tensors (complete and finite) and the features of a checkpoint on disk.

    Args:
        path: file or folder, as for `read_checkpoint`.

    Returns:
        The checks, in order; omits the feature check if the file is unreadable.

    Raises:
        UserError: the file does not exist.
    """
    file = find_weights_file(path)
    if file.suffix == SUFFIX:
        return [Check("digest", None, f"{file_digest(file)}; none was recorded beside the file"), _onnx_check(file)]
    checks = [_digest_check(file)]
    try:
        weights = read_checkpoint(path)
    except UserError as error:
        return [*checks, Check("tensors", False, " ".join(str(error).split()))]
    told = f"{len(weights.tensors)} tensors of a {weights.arch} ({weights.format}), all of its shapes and finite"
    return [*checks, Check("tensors", True, told), fingerprint_check(weights)]


def _onnx_check(file: Path) -> Check:
    try:
        compared, told = verify_onnx(file)
    except UserError as error:
        return Check("features", False, one_line(error))
    if told:
        return Check("features", False, "; ".join(told))
    return Check("features", True, f"{', '.join(compared)} in ONNX Runtime are those of the export on the fixed input")


def fingerprint_check(weights: Weights) -> Check:
    """Compare the features of the fixed input with the fingerprint in the facts."""
    stored = weights.facts.get(FINGERPRINT_KEY)
    if stored is None:
        return Check("features", None, "no fingerprint was stored with these weights")
    try:
        told = differences(stored, weights.arch, weights.tensors)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError):
        return Check("features", False, "the stored fingerprint is damaged")
    if told:
        return Check("features", False, "; ".join(told))
    return Check("features", True, f"those of the export on the fixed input, within {TOLERANCE:g} of each stage's size")


def _digest_check(file: Path) -> Check:
    facts = file.with_name(FACTS_FILE)
    digest = file_digest(file)
    try:
        content: Any = read_json(facts)
    except FileNotFoundError:
        content = {}
    except (OSError, ValueError):
        return Check("digest", False, f"{facts} is damaged")
    recorded = content.get("digest") if isinstance(content, dict) and content.get("file") == file.name else None
    if recorded is None:
        return Check("digest", None, f"{digest}; none was recorded beside the file")
    if recorded != digest:
        return Check("digest", False, f"{digest}, but {one_line(recorded, 80)} was recorded at the export")
    return Check("digest", True, digest)
