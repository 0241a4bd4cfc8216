"""Reading YAML files that may be damaged or hostile, within bounds of size, depth and repetition.

Aliases let a short file stand for an endless document (the "billion laughs"), merge keys unroll it while it is read,
and deep nesting exhausts the stack of a recursive reader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import UserError, one_line
from .regular_files import read_text

MAX_BYTES = 1 << 18
"""Largest file; settings take a few kilobytes."""

MAX_DEPTH = 32
MAX_VALUES = 100_000
"""Most values once every alias is replaced by what it stands for."""

MAX_SCALAR = 1 << 14
"""Most characters of one value; sexagesimal integers take time that grows with the square of their length."""


class _TooLargeError(Exception):
    """Beyond one of the bounds; says which."""


class _BoundedLoader(yaml.SafeLoader):
    """A safe loader that counts the values of the document as if aliases were written out.

    A document that contains itself is refused by PyYAML's constructor only in part; here an alias of a value that is
    still open is beyond the bounds as well.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            node: yaml.Node | None = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise _TooLargeError("a value contains itself")
            self._count(self._sizes[id(node)])
            return node
        if self._depth >= MAX_DEPTH:
            raise _TooLargeError(f"nested more than {MAX_DEPTH} deep")
        before = self._values
        self._count(1)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.ScalarNode) and len(node.value) > MAX_SCALAR:
            raise _TooLargeError(f"a value of more than {MAX_SCALAR} characters")
        self._sizes[id(node)] = self._values - before
        return node

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _TooLargeError(f"more than {MAX_VALUES:,} values once its aliases are written out")


def read_yaml(path: Path, remedy: str = "correct it") -> tuple[Any, dict[str, int]]:
    """Read a YAML file as plain values.

    Args:
        path: a regular file of at most `MAX_BYTES`, UTF-8.
        remedy: what to do about a file that cannot be read; ends the error.

    Returns:
        The document, and the line (counted from 1) of each key of its mapping; {} for an empty file or one that
        contains no mapping.

    Raises:
        OSError: cannot be opened, or is no regular file of at most `MAX_BYTES`.
        UserError: is no YAML, or goes beyond a bound; the error names the file and, if known, the line.
    """
    try:
        loader = _BoundedLoader(read_text(path, MAX_BYTES))
        node = loader.get_single_node()
        content = None if node is None else loader.construct_document(node)
    except _TooLargeError as error:
        raise UserError(f"{path}: {error}, which no file of settings needs; {remedy}") from None
    except yaml.MarkedYAMLError as error:
        where = f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else str(path)
        raise UserError(f"{where} is not YAML: {one_line(error.problem or error)}; {remedy}") from None
    # A tag on a value that it does not fit (`!!int ""`, the date 2001-99-99) ends in whatever error Python has for it.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path} is not YAML: {one_line(error)}; {remedy}") from None
    lines = (
        {str(key.value): key.start_mark.line + 1 for key, _ in node.value} if isinstance(node, yaml.MappingNode) else {}
    )
    return content, lines
