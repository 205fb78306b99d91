"""Training state from a donor to a joiner: a JSON header, then raw bytes.

A thread streams from the donor's copy of its state (`staging`), so the donor's rounds go on.
Joiners that ask at the same boundary share the copy. Both sides prove the job's token first
(`dssync.control.transport`).
"""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable

import torch

from dssync.control.address import address_of, endpoint_of
from dssync.control.transport import HANDSHAKE_SECONDS, ClientHandshake, ServerHandshake
from dssync.errors import DssyncError, TransferError
from dssync.worker.staging import Moment, Snapshot, restore

_LENGTH = struct.Struct(">Q")
_HEADER_LIMIT_BYTES = 256 << 20
_HANDSHAKE_BYTES = 64
IO_TIMEOUT_SECONDS = 30.0
"""A transfer under way ends when nothing of it moves for so long."""
PROBE_SECONDS = 5
"""Between two of the probes by which a joiner sees that its donor's machine is out of reach."""
PROBES = 5
MOST_STRANGERS = 64
"""Connections that have not proved the token yet; the oldest one gives way to who comes later."""
ACCEPT_PAUSE_SECONDS = 0.05
"""After a connection that the system could not give."""
_PART_BYTES = 1 << 20


class StateServer:
    """Serves this member's state to joiners.

    Args:
        host: address to listen on.
        token: the job's shared secret.
        snapshot: blocks until the training thread has taken a snapshot; called in the thread of
            one transfer.
        on_done: called when a transfer has ended.
    """

    def __init__(
        self,
        host: str,
        token: bytes,
        snapshot: Callable[[], Snapshot],
        on_done: Callable[[], None],
    ) -> None:
        self._token = token
        self._on_done = on_done
        self._snapshot = snapshot
        self._listener = socket.create_server((host, 0))
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._strangers: list[socket.socket] = []
        self._transfers = 0
        self.served = 0
        """Transfers that the joiner got to the end."""
        self.address = address_of(host, self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="dssync-state", daemon=True).start()

    @property
    def transfers(self) -> int:
        """Transfers under way."""
        return self._transfers

    def close(self) -> None:
        """Accept no more."""
        self._closed.set()
        # Closing alone would leave the accepting thread in its call, and the port open with it.
        _shut(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # Closed; or too few descriptors, or a connection that has failed already.
                self._closed.wait(ACCEPT_PAUSE_SECONDS)
                continue
            self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        """Hear a connection in a thread of its own, if there is one."""
        with self._lock:
            self._strangers.append(connection)
            for oldest in self._strangers[:-MOST_STRANGERS]:
                _shut(oldest)
        try:
            threading.Thread(target=self._welcome, args=(connection,), daemon=True).start()
        except RuntimeError:
            self._known(connection)
            connection.close()

    def _known(self, connection: socket.socket) -> None:
        """Take a connection from the strangers."""
        with self._lock, contextlib.suppress(ValueError):
            self._strangers.remove(connection)

    def _welcome(self, connection: socket.socket) -> None:
        """Serve whoever proves the token in time; a stranger changes nothing here.

        A joiner that goes away reports its own side.
        """
        with connection, contextlib.suppress(OSError, DssyncError):
            try:
                _accept_client(connection, self._token, time.monotonic() + HANDSHAKE_SECONDS)
            finally:
                self._known(connection)
            connection.settimeout(IO_TIMEOUT_SECONDS)
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._transfers += 1
        try:
            snapshot = self._snapshot()
            _send(connection, _LENGTH.pack(len(snapshot.header)) + snapshot.header)
            _send(connection, snapshot.buffer.numpy().data)
            with self._lock:
                self.served += 1
        finally:
            with self._lock:
                self._transfers -= 1
            self._on_done()


class FetchedState:
    """A transfer from a donor, in a thread of its own, so that the joiner can give it up.

    Args:
        address: where the donor listens, ``host:port``.
        token: the job's shared secret.
        on_done: called when the transfer is over.
        pause_seconds: so long it waits before it begins.
    """

    def __init__(
        self, address: str, token: bytes, on_done: Callable[[], None], pause_seconds: float = 0.0
    ) -> None:
        self.state: object = None
        self.error: str | None = None
        self.done = False
        self.size_bytes = 0
        self.taken: Moment | None = None
        """When the donor took it, if it said so."""
        self._address = address
        self._token = token
        self._on_done = on_done
        self._pause_seconds = pause_seconds
        self._lock = threading.Lock()
        self._given_up = threading.Event()
        self._connection: socket.socket | None = None
        threading.Thread(target=self._run, name="dssync-fetch", daemon=True).start()

    def give_up(self) -> None:
        """End the transfer."""
        with self._lock:
            self._given_up.set()
            if self._connection is not None:
                # Closing alone would leave the fetching thread in its call.
                _shut(self._connection)

    def _run(self) -> None:
        try:
            self._fetch()
        except (OSError, DssyncError) as error:
            self.error = str(error)
        except Exception as error:  # Too little memory, or a header of another version.
            self.error = f"the state cannot be taken in: {error!r}"
        finally:
            self.done = True
            self._on_done()

    def _fetch(self) -> None:
        if self._given_up.wait(self._pause_seconds):
            return
        with socket.create_connection(endpoint_of(self._address), IO_TIMEOUT_SECONDS) as connection:
            with self._lock:
                self._connection = connection
                if self._given_up.is_set():
                    return
            _show_token(connection, self._token)
            # The donor answers at its next boundary, however long its step is; the coordinator
            # sends the joiner elsewhere if the donor is lost, and the system tells of a network
            # that has parted these two alone.
            connection.settimeout(None)
            _probe(connection)
            (size,) = _LENGTH.unpack(_receive(connection, _LENGTH.size))
            connection.settimeout(IO_TIMEOUT_SECONDS)
            if size > _HEADER_LIMIT_BYTES:
                raise TransferError(f"a donor announced a header of {size} bytes")
            header = _receive(connection, size)
            fields = json.loads(header)
            buffer = torch.empty(int(fields["bytes"]), dtype=torch.uint8)
            _receive_into(connection, buffer.numpy().data)
            self.size_bytes = buffer.numel()
            self.state = restore(header, buffer)
            if fields["taken"] is not None:
                generation, steps, number = map(int, fields["taken"])
                self.taken = generation, steps, number


def _shut(connection: socket.socket) -> None:
    """End what any thread waits for there."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _accept_client(connection: socket.socket, token: bytes, deadline: float) -> None:
    handshake = ServerHandshake(token)
    connection.sendall(handshake.challenge)
    reply = b""
    while len(reply) < _HANDSHAKE_BYTES:
        # Whoever sends one byte now and then is not worth a thread for long.
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        part = connection.recv(_HANDSHAKE_BYTES - len(reply))
        if not part:
            raise TransferError("the other side ended the handshake")
        reply += part
    connection.sendall(handshake.answer(reply))


def _show_token(connection: socket.socket, token: bytes) -> None:
    handshake = ClientHandshake(token)
    connection.sendall(handshake.reply(_receive(connection, _HANDSHAKE_BYTES // 2)))
    handshake.check(_receive(connection, _HANDSHAKE_BYTES // 2))


def _probe(connection: socket.socket) -> None:
    """Have the system ask now and then whether the other side's machine is still there."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


def _send(connection: socket.socket, data: bytes | memoryview) -> None:
    """Send all of it; the timeout is for each part, where ``sendall`` has one for the whole."""
    view = memoryview(data)
    while len(view):
        view = view[connection.send(view[:_PART_BYTES]) :]


def _receive(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    _receive_into(connection, memoryview(data))
    return bytes(data)


def _receive_into(connection: socket.socket, view: memoryview) -> None:
    while len(view):
        count = connection.recv_into(view)
        if count == 0:
            raise TransferError("the other side ended the transfer")
        view = view[count:]
