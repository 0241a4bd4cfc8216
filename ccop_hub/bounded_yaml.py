"""Write YAML, and read possibly damaged or malicious YAML files with limits on size, depth and repetition.

Aliases can expand a short file without end ("billion laughs"), merge keys expand it during parsing, and deep nesting
overflows the stack of a recursive parser.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError, one_line
from .regular_files import read_text

MAX_BYTES = 1 << 18
"""Maximum file size; settings take a few kilobytes."""

MAX_DEPTH = 32
MAX_VALUES = 100_000
"""Maximum number of values after expanding aliases."""

MAX_SCALAR = 1 << 14
"""Maximum number of characters per value; parsing sexagesimal integers takes quadratic time."""


_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$")
_FLOAT = re.compile(
    r"([-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
)
"""Numbers of PyYAML (YAML 1.1) without octal, binary and sexagesimal ones."""


class _TooLargeError(Exception):
    """The document exceeds a limit, which the message names."""


class _BoundedLoader(yaml.SafeLoader):
    """A safe loader that counts values as if aliases were expanded.

    PyYAML's constructor rejects only some self-referencing documents; this loader rejects any alias to an enclosing
    value. It also rejects a key that occurs twice. As in YAML 1.2, dates, numbers with a leading zero and numbers
    with colons are text: in YAML 1.1, `255:1` is 15301 and `010` is 8.
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

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"{one_line(key.value)!r} is there twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _TooLargeError(f"more than {MAX_VALUES:,} values once its aliases are written out")


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return PyYAML's patterns of values without quotes, by first character, with fewer values that are not text."""
    ours = {"tag:yaml.org,2002:int": _INTEGER, "tag:yaml.org,2002:float": _FLOAT, "tag:yaml.org,2002:timestamp": None}
    return {
        first: [(tag, used) for tag, pattern in patterns if (used := ours.get(tag, pattern)) is not None]
        for first, patterns in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_BoundedLoader.yaml_implicit_resolvers = _resolvers()


class _Dumper(yaml.SafeDumper):
    """A safe dumper that escapes characters that do not print; YAML folds some, such as U+0085, into spaces."""


def _dump_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _dump_text)


def dump_yaml(document: Any, sort_keys: bool = False) -> str:
    """Format plain values as YAML that `read_yaml` reads back unchanged."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=sort_keys, allow_unicode=True)
    return text


def read_yaml(path: Path, remedy: str = "correct it") -> tuple[Any, dict[str, int]]:
    """Read a YAML file as plain values.

    Args:
        path: a regular file of at most `MAX_BYTES`, UTF-8.
        remedy: what to do about an unreadable file; appended to the error message.

    Returns:
        The document, and the line number (from 1) of each top-level key; {} for an empty file or one without a mapping.

    Raises:
        OSError: the file cannot be opened, or is not a regular file of at most `MAX_BYTES`.
        UserError: the file is not valid YAML or exceeds a limit. The message names the file and, if known, the line.
    """
    try:
        text = read_text(path, MAX_BYTES)
        # JSON is YAML, except for indentation with tabs, which its strings cannot contain.
        loader = _BoundedLoader(text.replace("\t", " ") if text.lstrip().startswith("{") else text)
        node = loader.get_single_node()
        content = None if node is None else loader.construct_document(node)
    except _TooLargeError as error:
        raise UserError(f"{path}: {error}, which no file of settings needs; {remedy}") from None
    except yaml.MarkedYAMLError as error:
        where = f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else str(path)
        raise UserError(f"{where} is not YAML: {one_line(error.problem or error)}; {remedy}") from None
    # A tag that does not match its value (`!!int ""`, the date 2001-99-99) can raise almost any Python exception.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path} is not YAML: {one_line(error)}; {remedy}") from None
    lines = (
        {str(key.value): key.start_mark.line + 1 for key, _ in node.value} if isinstance(node, yaml.MappingNode) else {}
    )
    return content, lines
