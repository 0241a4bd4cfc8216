"""Whole numbers that are saved on the device but needed on the host."""

from __future__ import annotations

from torch import Tensor


class HostValue:
    """Remembers the value of a 0-d buffer, so that it is read from the device only after others have changed it.

    Reading a number waits for all work queued on a GPU.
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._version = 0
        self._value = 0

    def read(self, buffer: Tensor) -> int:
        """Return the value of `buffer`."""
        # torch counts the changes of a tensor; loading a checkpoint is one.
        if buffer is not self._buffer or buffer._version != self._version:
            self._remember(buffer, int(buffer))
        return self._value

    def write(self, buffer: Tensor, value: int) -> None:
        """Set `buffer` to `value`."""
        buffer.fill_(value)
        self._remember(buffer, value)

    def _remember(self, buffer: Tensor, value: int) -> None:
        self._buffer, self._version, self._value = buffer, buffer._version, value
