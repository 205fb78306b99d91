"""Messages of one launcher in order and exactly once, over connections that come and go. Sans IO.

A short loss of a connection is no failure (``reconnect_seconds``), but bytes that were under way
are lost with it. Each side numbers what it sends and keeps it until the other has acknowledged
it; after a reconnect both send again what the other lacks. A session lasts as long as the pod's
uid and the coordinator's term.

The coordinator names each session, and a launcher says at each connection which one it has: an
answer that was lost may have begun another.
"""

import struct
from collections import deque

from dssync.errors import ProtocolError

_HEADER = struct.Struct(">QQ")  # 32 bits are used up after some weeks of short rounds.
_UNNUMBERED = 0


class Session:
    """One side of a session."""

    __slots__ = ("_received", "_sent", "_unacknowledged", "name")

    def __init__(self, name: int = 0) -> None:
        self.name = name
        """Given by the coordinator; 0 before that."""
        self._sent = 0
        self._received = 0
        self._unacknowledged: deque[bytes] = deque()
        """The last messages that were sent; their numbers follow from ``_sent``."""

    def number(self, payload: bytes) -> bytes:
        """Return the frame of a message and keep the message until it is acknowledged."""
        self._sent += 1
        self._unacknowledged.append(payload)
        return self._frame(self._sent, payload)

    def passing(self, payload: bytes = b"") -> bytes:
        """Return a frame that may be lost: a hello, a heartbeat, a bare acknowledgement."""
        return self._frame(_UNNUMBERED, payload)

    def accept(self, frame: bytes) -> bytes | None:
        """Take in a frame; return its message, or None if it was here before.

        Raises:
            ProtocolError: the frame is too short, or a message before it is missing.
        """
        if len(frame) < _HEADER.size:
            raise ProtocolError(f"a frame of {len(frame)} bytes is too short for a session")
        number, acknowledged = _HEADER.unpack_from(frame)
        if number > self._received + 1:
            raise ProtocolError(
                f"message {number} of a session arrived but {self._received + 1} is next: "
                "the sides do not speak of one session"
            )
        while self._unacknowledged and self._first <= acknowledged:
            self._unacknowledged.popleft()
        if _UNNUMBERED < number <= self._received:
            return None
        self._received = max(self._received, number)
        return frame[_HEADER.size :]

    def resume(self) -> list[bytes]:
        """Return what to send again once the other side's first frame has been accepted."""
        numbered = enumerate(self._unacknowledged, self._first)
        return [self._frame(number, payload) for number, payload in numbered]

    @property
    def _first(self) -> int:
        """Number of the first message that is not acknowledged."""
        return self._sent - len(self._unacknowledged) + 1

    def _frame(self, number: int, payload: bytes) -> bytes:
        return _HEADER.pack(number, self._received) + payload
