"""A pickle reader that never runs code from the pickle; unknown objects become `Note`s.

A pickle is a program for a small stack machine that can import and call arbitrary objects. This reimplementation of the
machine imports nothing: a name resolves to a function of this project that rebuilds a container, array or tensor, or to
a `Note`. Names whose only use is to run code are rejected, since they mark the file as malicious.

Memory use is bounded by the file size: strings and bytes are slices of the file, never allocated by a length or count
in the pickle, and the number of operations is limited.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UserError, one_line
from .hostile_names import is_hostile

MOST_OPERATIONS = 2_000_000
"""Maximum operations per pickle; a checkpoint with a thousand tensors and an optimizer has about 50,000."""

_LARGE = 256
"""Minimum size in bytes for a byte string to be a view of the file instead of a copy."""

_LARGEST_INTEGER = 1 << 60
"""Integer keys from this size on become notes, since crafted hash collisions could make a dictionary slow."""


class HostilePickleError(UserError):
    """The pickle names an object whose only use is to run code or write files."""


class DamagedPickleError(Exception):
    """The data is not a complete pickle."""


@dataclasses.dataclass(eq=False)
class Note:
    """Placeholder for an object that is not built; records its class or function and its contents.

    Attributes:
        name: `module.name` of the class or function.
        called: whether the pickle called it; if not, the note represents the class or function itself.
        arguments: arguments of the call.
        state: attributes of the object as stored in the pickle, or None.
        items: items of a `dict` subclass.
        entries: entries of a `list` or `set` subclass.
    """

    name: str
    called: bool = False
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = dataclasses.field(default_factory=dict)
    entries: list[Any] = dataclasses.field(default_factory=list)

    def __repr__(self) -> str:
        return f"<{one_line(self.name)}, not built>"


class NotDense(Note):
    """A tensor or array that is not a dense array of numbers: sparse, quantized, strings or objects."""


@dataclasses.dataclass(eq=False)
class Rebuilder:
    """A function of this project that replaces one named in the pickle.

    Attributes:
        name: the name that it replaces.
        build: called with the arguments from the pickle.
    """

    name: str
    build: Callable[..., Any]


class Stateful:
    """Base of this project's objects that accept a state from the pickle."""

    def set_state(self, state: Any) -> None:
        """Set the state."""
        raise NotImplementedError


def read_pickle(
    data: memoryview,
    names: Mapping[str, Any],
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Run one pickle on the inert machine.

    Args:
        data: the file, starting at the pickle. Long byte strings in the result are views of it.
        names: `module.name` -> `Rebuilder` or finished object; all other names become a `Note`.
        persistent: resolves persistent ids. Without it, they are treated as damage.

    Returns:
        The object, and the size of the pickle in bytes.

    Raises:
        HostilePickleError: the pickle names an object that runs code.
        DamagedPickleError: the pickle is incomplete, or not one that any program writes.
    """
    machine = _Machine(data, names, persistent)
    try:
        return machine.run(), machine.position
    except (UserError, DamagedPickleError):
        raise
    except Exception as error:  # malformed data can fail anywhere, with any exception
        raise DamagedPickleError(type(error).__name__) from None


def global_of(module: str, name: str, names: Mapping[str, Any]) -> Any:
    """Resolve a name in a pickle.

    Raises:
        HostilePickleError: the only use of the object is to run code.
    """
    full = f"{module}.{name}"
    if full in names:
        return names[full]
    if is_hostile(module, name):
        raise HostilePickleError(f"references {one_line(full)}, which would run code; do not trust it")
    return Note(full)


class _Mark:
    pass


_MARK = _Mark()


class _Machine:
    """The stack machine; `run` executes the operations up to STOP."""

    def __init__(self, data: memoryview, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None) -> None:
        self.data = data
        self.names = names
        self.persistent = persistent
        self.position = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        operations = _OPERATIONS
        stop = ord(".")
        for _ in range(MOST_OPERATIONS):
            code = self.data[self.position]
            self.position += 1
            if code == stop:
                return self.pop()
            operations[code](self)
        raise DamagedPickleError(f"more than {MOST_OPERATIONS} operations")

    # --- reading

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise DamagedPickleError("ends early")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def number(self, form: str) -> int:
        found: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return found

    def line(self) -> bytes:
        length = 256
        while True:
            window = bytes(self.data[self.position : self.position + length])
            end = window.find(b"\n")
            if end >= 0:
                self.position += end + 1
                return window[:end]
            if self.position + length >= len(self.data):
                raise DamagedPickleError("ends early")
            length *= 4

    def text(self, count: int) -> str:
        return str(self.take(count), "utf-8", "surrogatepass")

    def blob(self, count: int) -> bytes | memoryview:
        taken = self.take(count)
        return taken if count >= _LARGE else bytes(taken)

    def old_string(self, count: int) -> str | memoryview:
        """Read a Python 2 string: text if short, array data if long."""
        taken = self.take(count)
        return taken if count >= _LARGE else str(taken, "latin1")

    # --- the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise DamagedPickleError("mark instead of an object")
        return value

    def pop_to_mark(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise DamagedPickleError("no mark")
        found = self.stack[start + 1 :]
        del self.stack[start:]
        return found

    def top(self) -> Any:
        value = self.stack[-1]
        if value is _MARK:
            raise DamagedPickleError("mark instead of an object")
        return value

    def recall(self, number: int) -> None:
        self.push(self.memo[number])

    # --- objects

    def call(self, function: Any, arguments: Any) -> Any:
        given = tuple(arguments) if isinstance(arguments, tuple | list) else ()
        if isinstance(function, Rebuilder):
            return function.build(*given)
        if isinstance(function, Note):
            if function.name.endswith(".getattr") and not _is_plain_attribute(given):
                raise HostilePickleError(
                    f"references {one_line(function.name)}, which can run any code; do not trust it"
                )
            return Note(function.name, called=True, arguments=given)
        raise DamagedPickleError("calls a non-function")

    def set_items(self, target: Any, flat: list[Any]) -> None:
        if len(flat) % 2:
            raise DamagedPickleError("a key without a value")
        items = target if isinstance(target, dict) else target.items if isinstance(target, Note) else None
        if items is None:
            raise DamagedPickleError("items of an object without items")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            items[_as_key(key)] = value

    def extend(self, target: Any, values: list[Any]) -> None:
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Note):
            target.entries.extend(values)
        else:
            raise DamagedPickleError("entries of an object without entries")

    def set_state(self, target: Any, state: Any) -> None:
        if isinstance(target, Stateful):
            target.set_state(state)
        elif isinstance(target, Note):
            target.state = state


def _is_plain_attribute(arguments: tuple[Any, ...]) -> bool:
    """Whether a `getattr` call is harmless, as pickled by enums: a public member of a class that is a note."""
    return (
        len(arguments) == 2
        and isinstance(arguments[0], Note)
        and isinstance(arguments[1], str)
        and not arguments[1].startswith("_")
    )


def _as_key(key: Any) -> Any:
    if isinstance(key, memoryview | bytes):
        return str(bytes(key), "latin1")
    if isinstance(key, str | bool | None) or (isinstance(key, int) and abs(key) < _LARGEST_INTEGER):
        return key
    return key if isinstance(key, Note) else Note(f"key of type {type(key).__name__}")


def _text_line(machine: _Machine) -> str:
    return machine.line().decode()


def _quoted(machine: _Machine) -> None:
    line = machine.line()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise DamagedPickleError("string without quotes")
    machine.push(line[1:-1].decode("unicode_escape"))


def _integer(machine: _Machine) -> None:
    line = machine.line()
    machine.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.rstrip(b"L")))


def _proto(machine: _Machine) -> None:
    if machine.number("<B") > 5:
        raise DamagedPickleError("unknown pickle protocol")


def _named(machine: _Machine) -> None:
    module, name = _text_line(machine), _text_line(machine)
    machine.push(global_of(module, name, machine.names))


def _stack_named(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise DamagedPickleError("name that is not text")
    machine.push(global_of(module, name, machine.names))


def _instance(machine: _Machine) -> None:
    arguments = machine.pop_to_mark()
    module, name = _text_line(machine), _text_line(machine)
    machine.push(machine.call(global_of(module, name, machine.names), tuple(arguments)))


def _object(machine: _Machine) -> None:
    first, *arguments = machine.pop_to_mark()
    machine.push(machine.call(first, tuple(arguments)))


def _reduce(machine: _Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.push(machine.call(function, arguments))


def _new_with_keywords(machine: _Machine) -> None:
    machine.pop()
    _reduce(machine)


def _build(machine: _Machine) -> None:
    state = machine.pop()
    machine.set_state(machine.top(), state)


def _append(machine: _Machine) -> None:
    value = machine.pop()
    machine.extend(machine.top(), [value])


def _appends(machine: _Machine) -> None:
    values = machine.pop_to_mark()
    machine.extend(machine.top(), values)


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items(machine.top(), [key, value])


def _set_items(machine: _Machine) -> None:
    flat = machine.pop_to_mark()
    machine.set_items(machine.top(), flat)


def _dictionary(machine: _Machine) -> None:
    flat = machine.pop_to_mark()
    found: dict[Any, Any] = {}
    machine.set_items(found, flat)
    machine.push(found)


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def make(machine: _Machine) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(values)))

    return make


def _persistent(machine: _Machine, identity: Any) -> None:
    if machine.persistent is None:
        raise DamagedPickleError("refers to objects outside itself")
    machine.push(machine.persistent(identity))


def _refused(machine: _Machine) -> None:
    raise DamagedPickleError("unknown operation")


def _long(machine: _Machine, count: int) -> None:
    machine.push(int.from_bytes(machine.take(count), "little", signed=True))


def _remember(machine: _Machine, number: int) -> None:
    machine.memo[number] = machine.top()


_BY_LETTER: dict[str, Callable[[_Machine], Any]] = {
    "(": lambda m: m.push(_MARK),
    "0": lambda m: m.stack.pop(),
    "1": lambda m: m.pop_to_mark(),
    "2": lambda m: m.push(m.top()),
    "F": lambda m: m.push(float(m.line())),
    "I": _integer,
    "J": lambda m: m.push(m.number("<i")),
    "K": lambda m: m.push(m.number("<B")),
    "L": _integer,
    "M": lambda m: m.push(m.number("<H")),
    "N": lambda m: m.push(None),
    "P": lambda m: _persistent(m, _text_line(m)),
    "Q": lambda m: _persistent(m, m.pop()),
    "R": _reduce,
    "S": _quoted,
    "T": lambda m: m.push(m.old_string(m.number("<i"))),
    "U": lambda m: m.push(m.old_string(m.number("<B"))),
    "V": lambda m: m.push(m.line().decode("raw_unicode_escape")),
    "X": lambda m: m.push(m.text(m.number("<I"))),
    "a": _append,
    "b": _build,
    "c": _named,
    "d": _dictionary,
    "}": lambda m: m.push({}),
    "e": _appends,
    "g": lambda m: m.recall(int(m.line())),
    "h": lambda m: m.recall(m.number("<B")),
    "i": _instance,
    "j": lambda m: m.recall(m.number("<I")),
    "l": lambda m: m.push(m.pop_to_mark()),
    "]": lambda m: m.push([]),
    "o": _object,
    "p": lambda m: _remember(m, int(m.line())),
    "q": lambda m: _remember(m, m.number("<B")),
    "r": lambda m: _remember(m, m.number("<I")),
    "s": _set_item,
    "t": lambda m: m.push(tuple(m.pop_to_mark())),
    ")": lambda m: m.push(()),
    "u": _set_items,
    "G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    "B": lambda m: m.push(m.blob(m.number("<I"))),
    "C": lambda m: m.push(m.blob(m.number("<B"))),
    "\x80": _proto,
    "\x81": _reduce,
    "\x85": _tuple_of(1),
    "\x86": _tuple_of(2),
    "\x87": _tuple_of(3),
    "\x88": lambda m: m.push(True),
    "\x89": lambda m: m.push(False),
    "\x8a": lambda m: _long(m, m.number("<B")),
    "\x8b": lambda m: _long(m, m.number("<i")),
    "\x8c": lambda m: m.push(m.text(m.number("<B"))),
    "\x8d": lambda m: m.push(m.text(m.number("<Q"))),
    "\x8e": lambda m: m.push(m.blob(m.number("<Q"))),
    "\x8f": lambda m: m.push([]),
    "\x90": _appends,
    "\x91": lambda m: m.push(m.pop_to_mark()),
    "\x92": _new_with_keywords,
    "\x93": _stack_named,
    "\x94": lambda m: _remember(m, len(m.memo)),
    "\x95": lambda m: m.take(8),
    "\x96": lambda m: m.push(m.blob(m.number("<Q"))),
}
"""Opcode -> operation. Sets are read as lists, and bytearrays as bytes."""

_OPERATIONS = [_BY_LETTER.get(chr(code), _refused) for code in range(256)]
