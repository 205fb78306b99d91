"""Peers without the job's token reach nothing behind the handshake, on real sockets."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from dssync.control import transport
from dssync.control.transport import (
    MAX_FRAME_BYTES,
    ClientHandshake,
    FrameProtocol,
    ServerHandshake,
    connect,
    frame,
    serve,
)
from dssync.errors import AuthenticationError

TOKEN = b"the job's secret"


@dataclass
class Server:
    """A listening coordinator that keeps what reaches it."""

    port: int = 0
    received: list[bytes] = field(default_factory=list)
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    def on_frame(self, connection: FrameProtocol, payload: bytes) -> None:
        self.received.append(payload)
        connection.send(b"heard " + payload)

    def on_lost(self, connection: FrameProtocol) -> None:
        self.lost.set()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    state = Server()
    # Nothing here may rest on the time limit, but for the test of it.
    listening = await serve("127.0.0.1", 0, TOKEN, state.on_frame, state.on_lost, 600.0)
    state.port = listening.sockets[0].getsockname()[1]
    yield state
    listening.close()
    await listening.wait_closed()


@dataclass
class Peer:
    """A raw socket that speaks frames."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def frame(self) -> bytes:
        size = int.from_bytes(await self.reader.readexactly(4), "big")
        return await self.reader.readexactly(size)

    async def is_cut_off(self) -> bool:
        """Whether the other side ends the connection without another byte."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read() == b""
        return True


@contextlib.asynccontextmanager
async def peer_of(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield Peer(reader, writer)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def stranger(greeting: bytes) -> AsyncIterator[int]:
    """A server that sends something and then listens to one client; gives its port."""
    over = asyncio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        over.set()

    async with await asyncio.start_server(serve_one, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]
        await over.wait()


async def test_with_the_token_messages_pass_both_ways(server: Server) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    connection = await connect("127.0.0.1", server.port, TOKEN, heard.put_nowait, lambda: None)

    big = secrets.token_bytes(1 << 20)
    connection.send(b"hello")
    connection.send(big)

    assert await heard.get() == b"heard hello"
    assert await heard.get() == b"heard " + big
    connection.close()
    await server.lost.wait()


async def test_a_client_with_another_token_is_refused(server: Server) -> None:
    with pytest.raises(AuthenticationError, match="check that both sides use one token file"):
        await connect("127.0.0.1", server.port, b"wrong", lambda _: None, lambda: None)

    assert server.received == []


async def test_a_server_with_another_token_is_refused_by_the_client() -> None:
    client, server = ClientHandshake(TOKEN), ServerHandshake(b"wrong")
    client.reply(server.challenge)

    with pytest.raises(AuthenticationError, match="server does not hold"):
        client.check(secrets.token_bytes(32))


@pytest.mark.parametrize("size", [0, 1, 31, 32, 63, 65, 128])
async def test_a_reply_of_the_wrong_size_is_refused(server: Server, size: int) -> None:
    async with peer_of(server.port) as peer:
        await peer.frame()

        peer.writer.write(frame(b"x" * size) + frame(b"message"))

        assert await peer.is_cut_off()
    assert server.received == []


async def test_a_recorded_reply_is_worth_nothing_on_another_connection(server: Server) -> None:
    client = ClientHandshake(TOKEN)
    async with peer_of(server.port) as first, peer_of(server.port) as second:
        recorded = client.reply(await first.frame())
        await second.frame()

        second.writer.write(frame(recorded))

        assert await second.is_cut_off()
        first.writer.write(frame(recorded))
        client.check(await first.frame())
    assert server.received == []


async def test_the_servers_own_proof_reflected_is_refused(server: Server) -> None:
    client = ClientHandshake(TOKEN)
    async with peer_of(server.port) as first, peer_of(server.port) as second:
        first.writer.write(frame(client.reply(await first.frame())))
        proof = await first.frame()
        nonce = (await second.frame())[:32]

        second.writer.write(frame(nonce + proof))

        assert await second.is_cut_off()


async def test_what_a_stranger_sends_after_a_refused_reply_is_not_parsed(server: Server) -> None:
    async with peer_of(server.port) as peer:
        peer.writer.write(frame(b"x" * 64) + frame(b"message") * 3)

        await peer.frame()
        assert await peer.is_cut_off()
    assert server.received == []


@pytest.mark.parametrize("size", [129, MAX_FRAME_BYTES, 2**32 - 1])
async def test_a_stranger_may_not_announce_more_than_a_handshake(server: Server, size: int) -> None:
    async with peer_of(server.port) as peer:
        await peer.frame()

        peer.writer.write(size.to_bytes(4, "big"))

        assert await peer.is_cut_off()


async def test_an_oversized_frame_ends_even_a_trusted_connection(server: Server) -> None:
    client = ClientHandshake(TOKEN)
    async with peer_of(server.port) as peer:
        peer.writer.write(frame(client.reply(await peer.frame())))
        client.check(await peer.frame())

        peer.writer.write((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))

        assert await peer.is_cut_off()
        await server.lost.wait()


async def test_a_server_may_not_flood_a_client_before_its_proof() -> None:
    async with stranger((1 << 20).to_bytes(4, "big")) as port:
        with pytest.raises(AuthenticationError, match="ended the handshake"):
            await connect("127.0.0.1", port, TOKEN, lambda _: None, lambda: None)


async def test_silent_peers_are_given_up() -> None:
    state = Server()
    listening = await serve("127.0.0.1", 0, TOKEN, state.on_frame, state.on_lost, 0.05)

    async with listening, peer_of(listening.sockets[0].getsockname()[1]) as peer:
        await peer.frame()
        assert await peer.is_cut_off()


async def test_silent_peers_give_way_to_who_comes_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MOST_STRANGERS", 4)
    async with contextlib.AsyncExitStack() as open_peers:
        answers: asyncio.Queue[bytes] = asyncio.Queue()
        heard = answers.put_nowait
        trusted = await connect("127.0.0.1", server.port, TOKEN, heard, lambda: None)
        silent = [await open_peers.enter_async_context(peer_of(server.port)) for _ in range(8)]
        for each in silent:
            await each.frame()

        async with asyncio.timeout(10):
            cut_off = [await each.is_cut_off() for each in silent[:4]]
            late = await connect("127.0.0.1", server.port, TOKEN, heard, lambda: None)

        assert cut_off == [True] * 4
        late.close()
        trusted.send(b"still here")
        assert await asyncio.wait_for(answers.get(), 10) == b"heard still here"
        trusted.close()


async def test_a_server_that_never_speaks_counts_as_unreachable() -> None:
    async with stranger(b"") as port:
        with pytest.raises(TimeoutError):
            await connect("127.0.0.1", port, TOKEN, lambda _: None, lambda: None, 0.05)
