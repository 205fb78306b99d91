"""Training state from a donor to a joiner: a JSON header, then raw bytes.

The donor copies its state once, at a moment when nothing trains, into a buffer that it keeps;
a thread streams from there, so the donor's rounds go on. Joiners that ask at the same boundary
share the copy. Both sides prove the job's token first (`dssync.control.transport`).
"""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dssync.control.address import address_of, endpoint_of
from dssync.control.transport import HANDSHAKE_SECONDS, ClientHandshake, ServerHandshake
from dssync.errors import DssyncError, TransferError
from dssync.worker.tree import pack, unpack

_LENGTH = struct.Struct(">Q")
_HEADER_LIMIT_BYTES = 256 << 20
_HANDSHAKE_BYTES = 64
IO_TIMEOUT_SECONDS = 30.0
ALIGNMENT = 64


@dataclass
class Snapshot:
    """A copy of the state, ready for the wire."""

    header: bytes
    buffer: torch.Tensor
    """The bytes to send."""
    memory: torch.Tensor
    """What ``buffer`` is the beginning of; kept for the next snapshot."""


Moment = tuple[int, int, int]
"""When a snapshot was taken, as the view log counts (``control.viewlog.Point``)."""


def take_snapshot(
    state: object, reuse: torch.Tensor | None, taken: Moment | None = None
) -> Snapshot:
    """Copy ``state`` into one buffer.

    Args:
        state: nested dictionaries with tensors.
        reuse: a buffer of an earlier snapshot; one that was touched before is filled five times
            faster than a fresh one.
        taken: when; goes with it.

    Raises:
        ModelError: ``state`` holds something that cannot be sent.
    """
    tensors: list[torch.Tensor] = []
    tree = pack(state, tensors)
    offsets, size = _offsets(tensors)
    buffer = reuse
    if buffer is None or buffer.numel() < size:
        # Pinned memory takes a device's copies several times faster, and without a host wait each.
        on_device = any(tensor.is_cuda for tensor in tensors)
        buffer = torch.empty(size, dtype=torch.uint8, pin_memory=on_device)
    for tensor, offset in zip(tensors, offsets, strict=True):
        view = _view(buffer, offset, tensor.dtype, tuple(tensor.shape))
        view.copy_(tensor, non_blocking=buffer.is_pinned())
    if buffer.is_pinned():
        torch.cuda.current_stream().synchronize()
    specs = [[str(t.dtype).removeprefix("torch."), list(t.shape)] for t in tensors]
    header = {"tree": tree, "tensors": specs, "bytes": size, "taken": taken}
    return Snapshot(json.dumps(header).encode(), buffer[:size], buffer)


def restore(header: bytes, buffer: torch.Tensor) -> object:
    """Return the state whose header and bytes these are; tensors are views of ``buffer``.

    Raises:
        TransferError: the header is malformed or does not fit the bytes.
    """
    try:
        fields = json.loads(header)
        shapes = [(getattr(torch, name), tuple(shape)) for name, shape in fields["tensors"]]
        empty = [torch.empty(shape, dtype=dtype, device="meta") for dtype, shape in shapes]
        offsets, size = _offsets(empty)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TransferError(f"the header of a donor's state is malformed: {error}") from None
    if size != buffer.numel():
        raise TransferError(f"a donor sent {buffer.numel()} bytes for a state of {size}")
    tensors = [
        _view(buffer, offset, dtype, shape)
        for offset, (dtype, shape) in zip(offsets, shapes, strict=True)
    ]
    return unpack(fields["tree"], tensors)


def _offsets(tensors: list[torch.Tensor]) -> tuple[list[int], int]:
    offsets, end = [], 0
    for tensor in tensors:
        offsets.append(end)
        size = tensor.numel() * tensor.element_size()
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, end


def _view(
    buffer: torch.Tensor, offset: int, dtype: torch.dtype, shape: tuple[int, ...]
) -> torch.Tensor:
    count = torch.Size(shape).numel()
    size = count * dtype.itemsize
    return buffer[offset : offset + size].view(dtype).view(shape)


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
        # Closing alone would leave the accepting thread in its call, and the port open with it.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._welcome, args=(connection,), daemon=True).start()

    def _welcome(self, connection: socket.socket) -> None:
        """Serve whoever proves the token in time; a stranger changes nothing here.

        A joiner that goes away reports its own side.
        """
        with connection, contextlib.suppress(OSError, DssyncError):
            _accept_client(connection, self._token, time.monotonic() + HANDSHAKE_SECONDS)
            connection.settimeout(IO_TIMEOUT_SECONDS)
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._transfers += 1
        try:
            snapshot = self._snapshot()
            connection.sendall(_LENGTH.pack(len(snapshot.header)) + snapshot.header)
            connection.sendall(snapshot.buffer.numpy().data)
            with self._lock:
                self.served += 1
        finally:
            with self._lock:
                self._transfers -= 1
            self._on_done()


class FetchedState:
    """A transfer from a donor, in a thread of its own, so that the joiner can give it up."""

    def __init__(self, address: str, token: bytes, on_done: Callable[[], None]) -> None:
        self.state: object = None
        self.error: str | None = None
        self.done = False
        self.size_bytes = 0
        self.taken: Moment | None = None
        """When the donor took it, if it said so."""
        self._address = address
        self._token = token
        self._on_done = on_done
        self._lock = threading.Lock()
        self._given_up = False
        self._connection: socket.socket | None = None
        threading.Thread(target=self._run, name="dssync-fetch", daemon=True).start()

    def give_up(self) -> None:
        """End the transfer."""
        with self._lock:
            self._given_up = True
            if self._connection is not None:
                # Closing alone would leave the fetching thread in its call.
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            self._fetch()
        except (OSError, DssyncError) as error:
            self.error = str(error)
        self.done = True
        self._on_done()

    def _fetch(self) -> None:
        with socket.create_connection(endpoint_of(self._address), IO_TIMEOUT_SECONDS) as connection:
            with self._lock:
                self._connection = connection
                if self._given_up:
                    return
            _show_token(connection, self._token)
            # The donor answers at its next boundary, however long its step is; the coordinator
            # sends the joiner elsewhere if the donor is lost.
            connection.settimeout(None)
            (size,) = _LENGTH.unpack(_receive(connection, _LENGTH.size))
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
