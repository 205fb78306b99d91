"""Frames over sockets, and the handshake before the first one. The thin IO of the control plane.

A frame is a length (four bytes, big-endian) and that many bytes. Before anything of a peer is
parsed, both sides prove that they hold the job's token: the server sends a nonce, the client
answers with its own and an HMAC over both, the server answers with its HMAC. Until then a frame
may hold 128 bytes, afterwards `MAX_FRAME_BYTES`; and until then a peer has a few seconds.
"""

import asyncio
import hashlib
import hmac
import secrets
import struct
import threading
from collections.abc import Callable

from dssync.errors import AuthenticationError, ProtocolError

MAX_FRAME_BYTES = 16 << 20
HANDSHAKE_SECONDS = 5.0
MOST_STRANGERS = 1024
"""Connections that have not proved the token yet; the oldest one gives way to who comes later. More
than a job has launchers: they all come at once when another one has taken over."""
NEXT_ADDRESS_SECONDS = 0.25
"""A name's next address is tried when the one before has not answered for so long; RFC 8305."""
_HANDSHAKE_FRAME_BYTES = 128
_NONCE_BYTES = 32
_READ_BYTES = 1 << 16
_LENGTH = struct.Struct(">I")


OnFrame = Callable[["FrameProtocol", bytes], None]


def frame(payload: bytes) -> bytes:
    """Return the payload with its length in front."""
    return _LENGTH.pack(len(payload)) + payload


class Unframer:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_buffer", "limit_bytes")

    def __init__(self, limit_bytes: int = MAX_FRAME_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Take in bytes and return the frames that they complete.

        Raises:
            ProtocolError: a frame announces more bytes than the limit.
        """
        if not self._buffer:  # Mostly whole frames come, and nothing has to be kept.
            frames, used = self._cut(data)
            if used < len(data):
                self._buffer += data[used:]
            return frames
        self._buffer += data
        frames, used = self._cut(self._buffer)
        del self._buffer[:used]
        return frames

    def _cut(self, stream: bytes | bytearray | memoryview) -> tuple[list[bytes], int]:
        """Return the whole frames at the beginning of a stream, and how long they are together."""
        frames, at = [], 0
        while len(stream) >= (start := at + _LENGTH.size):
            (size,) = _LENGTH.unpack_from(stream, at)
            if size > self.limit_bytes:
                raise ProtocolError(
                    f"a peer announced a frame of {size} bytes; "
                    f"at most {self.limit_bytes} are allowed"
                )
            if len(stream) < start + size:
                break
            at = start + size
            frames.append(bytes(stream[start:at]))
        return frames, at


class _Scratch(threading.local):
    """Where a thread's event loop reads to; what was read is taken out before the next read.

    For a protocol without a buffer asyncio makes one of 256 KiB for each read, and the memory
    costs more than all else that is done with a message.
    """

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(_READ_BYTES))


_scratch = _Scratch()


class FrameProtocol(asyncio.BufferedProtocol):
    """One connection: frames in by callback, frames out by ``send``."""

    __slots__ = (
        "_greeting",
        "_on_frame",
        "_on_lost",
        "_transport",
        "_unframer",
        "broken",
        "trusted",
    )

    def __init__(
        self,
        on_frame: OnFrame,
        on_lost: Callable[["FrameProtocol"], None],
        greeting: bytes = b"",
        limit_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        """Prepare a connection.

        Args:
            on_frame: takes what the peer sends; a ``ProtocolError`` in it ends the connection.
            on_lost: called once when the connection has ended.
            greeting: sent first.
            limit_bytes: size that a frame of the peer may have until it is trusted.
        """
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._greeting = greeting
        self._unframer = Unframer(limit_bytes)
        self._transport: asyncio.Transport | None = None
        self.trusted = False
        """Whether the peer has proved the token."""
        self.broken = ""
        """What the peer did against the protocol, for which its connection was ended."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport and send the greeting; asyncio calls this."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
        if self._greeting:
            self.send(self._greeting)

    def trust(self, on_frame: OnFrame | None = None) -> None:
        """Let frames of the peer, which has proved the token, have any legal size.

        Args:
            on_frame: takes them from now on, if another one than before.
        """
        self.trusted = True
        self._on_frame = on_frame or self._on_frame
        self._unframer.limit_bytes = MAX_FRAME_BYTES

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to; asyncio calls this."""
        return _scratch.memory

    def buffer_updated(self, nbytes: int) -> None:
        """Pass complete frames on; end the connection of a peer that breaks the framing."""
        try:
            for payload in self._unframer.feed(_scratch.memory[:nbytes]):
                self._on_frame(self, payload)
        except ProtocolError as error:
            self.broken = str(error)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end of the connection once."""
        self._on_lost(self)

    def send(self, payload: bytes) -> None:
        """Queue one frame."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(payload))

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()


def proof(token: bytes, role: str, *nonces: bytes) -> bytes:
    """Return what only a holder of the token can answer to these nonces."""
    return hmac.digest(token, role.encode() + b"".join(nonces), hashlib.sha256)


class ServerHandshake:
    """The accepting side: one nonce out, one answer in, one proof out."""

    def __init__(self, token: bytes) -> None:
        self._token = token
        self.challenge = secrets.token_bytes(_NONCE_BYTES)

    def answer(self, reply: bytes) -> bytes:
        """Check the client's reply and return the server's proof.

        Raises:
            AuthenticationError: the client does not hold the token.
        """
        nonce, shown = reply[:_NONCE_BYTES], reply[_NONCE_BYTES:]
        expected = proof(self._token, "client", self.challenge, nonce)
        if len(nonce) != _NONCE_BYTES or not hmac.compare_digest(shown, expected):
            raise AuthenticationError("a peer does not hold the job's token: connection refused")
        return proof(self._token, "server", self.challenge, nonce)


class ClientHandshake:
    """The connecting side: answers the server's nonce and checks its proof."""

    def __init__(self, token: bytes) -> None:
        self._token = token
        self._nonce = secrets.token_bytes(_NONCE_BYTES)
        self._challenge = b""

    def reply(self, challenge: bytes) -> bytes:
        """Return the answer to the server's nonce.

        Raises:
            AuthenticationError: it is not a nonce.
        """
        if len(challenge) != _NONCE_BYTES:
            raise AuthenticationError("the server's challenge is malformed: not a dssync launcher")
        self._challenge = challenge
        return self._nonce + proof(self._token, "client", challenge, self._nonce)

    def check(self, shown: bytes) -> None:
        """Check the server's proof.

        Raises:
            AuthenticationError: the server does not hold the token.
        """
        expected = proof(self._token, "server", self._challenge, self._nonce)
        if not hmac.compare_digest(shown, expected):
            raise AuthenticationError("the server does not hold the job's token")


async def connect(
    host: str,
    port: int,
    token: bytes,
    on_frame: Callable[[bytes], None],
    on_lost: Callable[[], None],
    handshake_seconds: float = HANDSHAKE_SECONDS,
) -> FrameProtocol:
    """Connect, prove the token and return the connection.

    Raises:
        OSError: nobody listens there, or nobody answers.
        AuthenticationError: one side does not hold the token, or the server went away.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    handshake = ClientHandshake(token)
    steps = iter(("challenge", "proof"))

    def handle(connection: FrameProtocol, payload: bytes) -> None:
        step = next(steps, None)
        if step is None:
            on_frame(payload)
        elif step == "challenge":
            connection.send(handshake.reply(payload))
        else:
            handshake.check(payload)
            connection.trust()
            ready.set_result(None)

    def lost(_: FrameProtocol) -> None:
        if not ready.done():
            ready.set_exception(
                AuthenticationError(
                    f"{host}:{port} ended the handshake: check that both sides use one token file"
                )
            )
        elif not ready.cancelled():
            on_lost()

    async with asyncio.timeout(handshake_seconds):
        _, connection = await loop.create_connection(
            lambda: FrameProtocol(handle, lost, limit_bytes=_HANDSHAKE_FRAME_BYTES),
            host,
            port,
            happy_eyeballs_delay=NEXT_ADDRESS_SECONDS,
        )
        try:
            await ready
        except asyncio.CancelledError:
            connection.close()
            raise
    return connection


async def serve(
    host: str,
    port: int,
    token: bytes,
    on_frame: OnFrame,
    on_lost: Callable[[FrameProtocol], None],
    handshake_seconds: float = HANDSHAKE_SECONDS,
) -> asyncio.Server:
    """Accept connections; only frames of peers that proved the token reach ``on_frame``.

    Args:
        host: address to bind to.
        port: port to bind to; 0 lets the system choose.
        token: what peers have to hold.
        on_frame: takes the frames of peers that are trusted.
        on_lost: called once for each connection that has ended, trusted or not.
        handshake_seconds: how long a peer may take to prove the token.

    Raises:
        OSError: the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    strangers: dict[FrameProtocol, None] = {}

    def accept() -> FrameProtocol:
        handshake = ServerHandshake(token)

        def handle(connection: FrameProtocol, payload: bytes) -> None:
            connection.send(handshake.answer(payload))
            connection.trust(on_frame)
            known(connection)

        def lost(connection: FrameProtocol) -> None:
            known(connection)
            on_lost(connection)

        def known(connection: FrameProtocol) -> None:
            expiry.cancel()
            strangers.pop(connection, None)

        connection = FrameProtocol(handle, lost, handshake.challenge, _HANDSHAKE_FRAME_BYTES)
        expiry = loop.call_later(handshake_seconds, connection.close)
        strangers[connection] = None
        if len(strangers) > MOST_STRANGERS:
            oldest = next(iter(strangers))
            del strangers[oldest]
            loop.call_soon(oldest.close)  # After its transport was made.
        return connection

    return await loop.create_server(accept, host, port)
