"""Copies workers' streams to a file and, line by line with a prefix, to the console.

A thread of its own: a console may block for as long as its reader likes, and the event loop has
heartbeats to send. A pipe keeps what a killed worker wrote, so nothing is lost with it.
"""

import contextlib
import os
import selectors
import threading
from dataclasses import dataclass, field
from typing import Final

_CHUNK_BYTES: Final = 1 << 16


@dataclass
class _Copy:
    """One stream on its way."""

    source: int
    file: int
    console: int
    prefix: bytes
    line: bytes = field(default=b"")
    """What of an unfinished line has arrived."""

    def move(self) -> bool:
        """Copy what is there; False at the end of the stream."""
        data = os.read(self.source, _CHUNK_BYTES)
        _write_all(self.file, data)
        *lines, self.line = (self.line + data).split(b"\n")
        if not data and self.line:
            lines, self.line = [self.line], b""
        _write_all(self.console, b"".join(self.prefix + line + b"\n" for line in lines))
        return bool(data)

    def close(self) -> None:
        os.close(self.source)
        os.close(self.file)


class Tee:
    """All copied streams of a launcher, in one thread that starts with the first of them."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = os.pipe()
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)
        self._new: list[_Copy] = []
        self._thread: threading.Thread | None = None

    def add(self, file: int, console: int, prefix: str) -> int:
        """Return the descriptor that a worker writes to; the caller closes it.

        Args:
            file: Descriptor of the file, owned from here on.
            console: Descriptor of the console.
            prefix: Put before each line on the console.
        """
        source, sink = os.pipe()
        os.set_blocking(source, False)
        self._new.append(_Copy(source, file, console, prefix.encode()))
        os.write(self._wake_sender, b"+")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tee", daemon=True)
            self._thread.start()
        return sink

    def close(self) -> None:
        """Copy what is left and end the thread; waits as long as the console blocks."""
        os.write(self._wake_sender, b"-")
        if self._thread is not None:
            self._thread.join()
        self._selector.close()
        os.close(self._wake_receiver)
        os.close(self._wake_sender)

    def _run(self) -> None:
        open_until_told = True
        while open_until_told:
            for key, _ in self._selector.select():
                if key.fd == self._wake_receiver:
                    open_until_told = b"-" not in os.read(self._wake_receiver, _CHUNK_BYTES)
                    self._adopt()
                elif not key.data.move():
                    self._drop(key.data)
        self._finish()

    def _adopt(self) -> None:
        while self._new:
            copy = self._new.pop(0)
            self._selector.register(copy.source, selectors.EVENT_READ, copy)

    def _finish(self) -> None:
        copies = [key.data for key in self._selector.get_map().values() if key.data]
        for copy in copies:
            with contextlib.suppress(BlockingIOError):  # a process outside our sight holds on
                while copy.move():
                    pass
            self._drop(copy)

    def _drop(self, copy: _Copy) -> None:
        self._selector.unregister(copy.source)
        copy.close()


def _write_all(descriptor: int, data: bytes) -> None:
    """Write what can be written: a full disk or a lost console must not hold up the workers."""
    view = memoryview(data)
    with contextlib.suppress(OSError):
        while view:
            view = view[os.write(descriptor, view) :]
