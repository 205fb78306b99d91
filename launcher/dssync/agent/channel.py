"""Messages between a launcher and its fork-server: JSON frames with descriptors beside them.

A frame is four bytes of length and a JSON object. Descriptors travel as ancillary data on the
frame's first byte, so they have arrived whenever the frame is complete. JSON and not pickle:
nothing in the project unpickles, not even between parent and child.
"""

import array
import contextlib
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

_LENGTH: Final = struct.Struct("!I")
_CHUNK_BYTES: Final = 1 << 16
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(16 * 4)

CommandKind = Literal["script", "module", "program"]


@dataclass(frozen=True)
class Ready:
    """The fork-server has imported what it should and takes requests."""


@dataclass(frozen=True)
class Start:
    """Request: fork a worker. Descriptors: link, error report, stdin, stdout, stderr."""

    kind: CommandKind
    target: str
    arguments: list[str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Started:
    """Reply to a ``Start``. Descriptor: the worker's pidfd."""

    pid: int


@dataclass(frozen=True)
class Failed:
    """Reply to a ``Start`` for which the system gave no process."""

    reason: str


@dataclass(frozen=True)
class Exited:
    """A worker is gone, reaped, and nothing of its process group is left."""

    pid: int
    returncode: int
    """As in ``subprocess``: the exit code, or minus the number of the signal."""
    at_seconds: float
    """Reading of ``time.monotonic``, which all processes of a machine share."""


Message = Ready | Start | Started | Failed | Exited
_TYPES: Final[dict[str, type[Message]]] = {
    kind.__name__: kind for kind in (Ready, Start, Started, Failed, Exited)
}


def encode(message: Message, descriptor_count: int = 0) -> bytes:
    """Return the frame of a message that ``descriptor_count`` descriptors will accompany."""
    fields = {"type": type(message).__name__, "descriptors": descriptor_count, **asdict(message)}
    body = json.dumps(fields).encode()
    return _LENGTH.pack(len(body)) + body


class Receiver:
    """Collects bytes and descriptors of a stream socket into messages."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    def receive(self) -> list[tuple[Message, list[int]]]:
        """Read once, without waiting for more, and return the messages that are complete.

        Raises:
            EOFError: The other side is gone.
            BlockingIOError: The socket is non-blocking and had nothing.
        """
        # Not socket.recv_fds: it drops its flags, and the link would leak into every program
        # that a worker starts.
        data, ancillary, _, _ = self._sock.recvmsg(
            _CHUNK_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            raise EOFError
        self._buffer += data
        for _, _, rights in ancillary:
            self._descriptors.extend(array.array("i", rights))
        return list(self._complete())

    def _complete(self) -> Iterator[tuple[Message, list[int]]]:
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            fields = json.loads(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            kind = _TYPES[fields.pop("type")]
            descriptors = [self._descriptors.popleft() for _ in range(fields.pop("descriptors"))]
            yield kind(**fields), descriptors


def send(sock: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message over a blocking socket; the caller keeps its copies of descriptors."""
    frame = encode(message, len(descriptors))
    sent = socket.send_fds(sock, [frame], descriptors)
    if sent < len(frame):
        sock.sendall(frame[sent:])


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors, those that are closed already included."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
