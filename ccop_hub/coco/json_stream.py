"""Stream the entries of a JSON file's top-level lists, in constant memory.

The scanner finds the end of an object by counting braces and decodes the object with orjson. Anything orjson cannot
decode (NaN, invalid bytes) goes to Python's decoder, which accepts NaN, so that validation can name the entry.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from ..errors import UserError
from ..regular_files import open_regular

MAX_ENTRY = 16 << 20
"""Maximum size of an entry in bytes, which takes up to 35 times this when decoded; a large mask takes 3 MB."""

_CHUNK = 1 << 18
_SLOW_WINDOW = 1 << 8
_SPACE = re.compile(rb"[ \t\n\r]*")
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRUCTURE = re.compile(rb'["{}]')
_BACKSLASH = 0x5C
_GUESSES = 8
_QUOTE, _OPENING, _CLOSING = b'"', b"[{", b"]}"
_DECODER = json.JSONDecoder()


def stream_entries(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, int, Any]]:
    """Yield the entries of the top-level lists named in `wanted`, in file order.

    Accepts UTF-8, UTF-16 and UTF-32, with or without a byte order mark. NaN and Infinity become floats.

    Yields:
        (list name, entry index from 0, decoded value). A null list is treated as absent.

    Raises:
        UserError: the file is missing, truncated, nested too deeply or not a JSON object, or a wanted value is not a
            list.
    """
    try:
        with open_regular(path) as file:
            yield from _Scanner(path, file).entries(wanted)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}); give a COCO JSON file") from None


class _Scanner:
    """A sliding UTF-8 window over a file, with a cursor."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._window = b""
        self._at = 0
        self._line, self._column = 1, 1  # position of the window's first byte
        self._ended = False
        self._context = ""
        head = file.read(4)
        file.seek(0)
        self._decode: codecs.IncrementalDecoder | None = None
        if head[:2] == b"\x1f\x8b":
            raise UserError(f"{path} is compressed: decompress it with gunzip")
        encoding = json.detect_encoding(head)
        if encoding == "utf-8-sig":
            file.read(len(codecs.BOM_UTF8))
        elif encoding != "utf-8":
            self._decode = codecs.getincrementaldecoder(encoding)("strict")

    def entries(self, wanted: Collection[str]) -> Iterator[tuple[str, int, Any]]:
        if self._peek() != b"{":
            if not self._window:
                raise UserError(f"{self._path} is empty; give a COCO JSON file")
            raise self._wrong(
                "a list where COCO has an object with images, annotations and categories"
                if self._peek() == b"["
                else "no JSON object"
            )
        self._at += 1
        while self._peek() != b"}":
            name = self._slow_value()
            if not isinstance(name, str):
                raise self._wrong("no name of a list")
            self._require(b":")
            if name in wanted and self._peek() == b"[":
                yield from self._list(name)
            elif name not in wanted and self._peek() in (b"[", b"{"):
                self._skip()
            else:
                value = self._value()
                if name in wanted and value is not None:
                    raise self._wrong(f"{name!r} is {_kind(value)}, not a list")
            if self._peek() != b"}":
                self._require(b",")
                if self._peek() == b"}":
                    raise self._wrong("a comma before a closing brace")
        self._at += 1
        if self._peek():
            raise self._wrong("more text after the end of the document")

    def _list(self, name: str) -> Iterator[tuple[str, int, Any]]:
        self._at += 1
        number = 0
        while self._peek() != b"]":
            self._context = f" in entry {number} of {name!r}"
            for value in self._plain_objects():
                yield name, number, value
                number += 1
            self._context = f" in entry {number} of {name!r}"
            yield name, number, self._value()
            if self._peek() != b"]":
                self._require(b",")
                if self._peek() == b"]":
                    raise self._wrong("a comma before a closing bracket")
            number += 1
        self._at += 1
        self._context = ""

    def _skip(self) -> None:
        """Move past the list or object at the cursor, counting brackets outside strings instead of decoding it."""
        depth, in_string = 0, False
        while True:
            chunk = _ESCAPE.sub(b"__", self._window[self._at :])
            if chunk.endswith(b"\\"):  # whose second half follows
                chunk = chunk[:-1]
            signs = np.frombuffer(chunk, dtype=np.uint8)
            inside = (np.cumsum(signs == _QUOTE[0]) + in_string) % 2 == 1
            steps = np.isin(signs, list(_OPENING)).astype(np.int8) - np.isin(signs, list(_CLOSING))
            steps[inside] = 0
            depths = depth + np.cumsum(steps, dtype=np.int64)
            ends = np.flatnonzero((depths == 0) & (steps < 0))
            if ends.size:
                self._at += int(ends[0]) + 1
                return
            if chunk:
                depth, in_string = int(depths[-1]), bool(inside[-1])
            self._at += len(chunk)
            if not self._more():
                raise self._cut_off()

    def _plain_objects(self) -> Iterator[Any]:
        """Fast path: yield the objects at the cursor that are each followed by another in the window."""
        window, at = self._window, self._at
        while window.startswith(b"{", at):
            end = window.find(b"}", at) + 1
            try:
                value = orjson.loads(window[at:end])
            except orjson.JSONDecodeError:
                try:
                    value, end = _nested_object(window, at, end)
                except ValueError:
                    break
            following = end + (1 if window.startswith(b",{", end) else 2)
            if not (following == end + 1 or window.startswith(b", {", end)):
                break
            at = following
            yield value
        self._at = at

    def _value(self) -> Any:
        if self._peek() != b"{":
            return self._slow_value()
        end = self._object_end()
        try:
            value = _decoded(self._window[self._at : end])
        except ValueError:
            return self._slow_value()
        self._at = end
        return value

    def _object_end(self) -> int:
        """Return the offset after the closing brace of the object at the cursor."""
        depth, place = 0, self._at
        while True:
            end, place, depth = _object_end(self._window, place, depth)
            if end:
                return end
            read = place - self._at
            if not self._more():
                raise self._cut_off()
            place = self._at + read

    def _slow_value(self) -> Any:
        """Decode the value at the cursor with Python's decoder, growing the window as needed."""
        self._peek()
        size = _SLOW_WINDOW
        while True:
            while len(self._window) - self._at < size and self._more():
                pass
            raw = self._window[self._at : self._at + size]
            whole = self._ended and len(raw) == len(self._window) - self._at
            text = raw.decode(errors="surrogateescape")
            try:
                value, end = _DECODER.raw_decode(text)
            except json.JSONDecodeError as error:
                # An error well before the end of the window is a real one; more data would not help.
                if whole or (error.pos < len(text) - 16 and not error.msg.startswith("Unterminated string")):
                    self._at += self._length(text[: error.pos])
                    raise self._cut_off() if whole and error.pos >= len(text) else self._wrong(error.msg) from None
            except RecursionError:
                raise self._wrong("nested too deeply") from None
            except ValueError:  # Python limits the number of digits of an integer
                raise self._wrong("a number with thousands of digits") from None
            else:
                if end < len(text) or whole:
                    self._at += self._length(text[:end])
                    return value
            size *= 4

    def _length(self, text: str) -> int:
        """Return the length in bytes of a text from the window, which must be UTF-8."""
        try:
            return len(text.encode())
        except UnicodeEncodeError as error:
            self._at += len(text[: error.start].encode())
            byte = ord(text[error.start]) & 0xFF
            raise self._wrong(f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None

    def _peek(self) -> bytes:
        """Return the next non-whitespace character; empty at the end of the file."""
        while True:
            match = _SPACE.match(self._window, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._window):
                return self._window[self._at : self._at + 1]
            if not self._more():
                return b""

    def _require(self, sign: bytes) -> None:
        found = self._peek()
        if not found:
            raise self._cut_off()
        if found != sign:
            raise self._wrong(f"{found.decode(errors='replace')!r} where {sign.decode()!r} is due")
        self._at += 1

    def _more(self) -> bool:
        """Read more data and discard everything before the cursor; return False at the end of the file."""
        if self._ended:
            return False
        kept = len(self._window) - self._at
        if kept > MAX_ENTRY:
            raise self._wrong(f"an entry of more than {MAX_ENTRY >> 20} MB")
        chunk = self._file.read(max(_CHUNK, kept))
        self._ended = not chunk
        if self._decode is not None:
            try:
                chunk = self._decode.decode(chunk, final=self._ended).encode()
            except UnicodeError as error:
                raise self._wrong(f"{getattr(error, 'encoding', 'text')} that does not decode") from None
        self._line, self._column = self._position()
        self._window = self._window[self._at :] + chunk
        self._at = 0
        return bool(chunk) or not self._ended

    def _position(self) -> tuple[int, int]:
        """Return the cursor's line and column (in UTF-8 bytes), both from 1."""
        lines = self._window.count(b"\n", 0, self._at)
        if not lines:
            return self._line, self._column + self._at
        return self._line + lines, self._at - self._window.rfind(b"\n", 0, self._at)

    def _cut_off(self) -> UserError:
        self._at = len(self._window)
        return self._wrong("the file ends here, in the middle: copy or download it again")

    def _wrong(self, what: str) -> UserError:
        line, column = self._position()
        return UserError(
            f"{self._path} is not a COCO JSON: line {line} column {column}{self._context}: {what}; "
            "see https://cocodataset.org/#format-data"
        )


def _nested_object(window: bytes, start: int, first: int) -> tuple[Any, int]:
    """Decode the object at an offset of the window; return it with the offset after it.

    Args:
        window: the text.
        start: offset of the opening brace.
        first: offset after the first closing brace, up to which the text is not an object.

    Raises:
        ValueError: the object is damaged or does not end in the window.
    """
    end, depth = first, window.count(b"{", start, first) - 1
    for _ in range(_GUESSES):  # assuming no braces inside strings, which is much faster
        if not depth or not end:
            break
        place, end = end, window.find(b"}", end) + 1
        depth += window.count(b"{", place, end) - 1
    if end and not depth and end != first:
        with suppress(orjson.JSONDecodeError):
            return orjson.loads(window[start:end]), end
    end, _, _ = _object_end(window, start, 0)
    if not end:
        raise ValueError
    return _decoded(window[start:end]), end


def _decoded(raw: bytes) -> Any:
    """Decode a JSON value, with NaN.

    Raises:
        ValueError: it is damaged or nested too deeply.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            return _DECODER.decode(raw.decode())
        except RecursionError:
            raise ValueError from None


def _object_end(window: bytes, place: int, depth: int) -> tuple[int, int, int]:
    """Find the brace that closes an object, leaving out the braces inside strings.

    Args:
        window: the text.
        place: offset at which to start, outside strings.
        depth: number of braces that are open there.

    Returns:
        The offset after the closing brace, or 0 if there is none; and where to continue with more text: the offset and
        the number of open braces.
    """
    while (found := _STRUCTURE.search(window, place)) is not None:
        if found[0] == _QUOTE:
            end = _string_end(window, found.end())
            if not end:
                return 0, found.start(), depth
            place = end
        else:
            depth += 1 if found[0] == b"{" else -1
            place = found.end()
            if not depth:
                return place, place, 0
    return 0, len(window), depth


def _string_end(window: bytes, place: int) -> int:
    """Return the offset after the quote that closes the string whose contents start at an offset; 0 if none does."""
    while (quote := window.find(_QUOTE, place)) >= 0:
        end = quote
        while end > place and window[end - 1] == _BACKSLASH:
            end -= 1
        if not (quote - end) % 2:
            return quote + 1
        place = quote + 1
    return 0


def _kind(value: Any) -> str:
    names = {dict: "an object", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)
