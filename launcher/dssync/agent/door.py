"""The one port of a launcher: other launchers come here if it coordinates, people in any case.

Everybody has proved the job's token before a first frame is looked at. That frame says who it is:
a launcher's hello, or what people ask.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from dssync.control.address import address_of
from dssync.control.peers import PEER, Answer as PeerAnswer, Elected, Leader
from dssync.control.requests import ANSWER, MARK, REQUEST, Answer, Request
from dssync.control.transport import FrameProtocol, serve
from dssync.errors import ProtocolError, UsageError

PEER_STARTS = (b'["Ask"', b'["Elected"')
Respond = Callable[[Request], Awaitable[Answer]]


class Launchers(Protocol):
    """Who takes the connections of launchers."""

    def frame(self, connection: FrameProtocol, frame: bytes) -> None:
        """Take a frame of a launcher."""

    def lost(self, connection: FrameProtocol) -> None:
        """Take note that a connection has ended."""


class Voter(Protocol):
    """This launcher's part in elections."""

    @property
    def answer(self) -> PeerAnswer:
        """What a candidate is told."""

    def heard(self, leader: Leader) -> None:
        """Take note that somebody was elected."""


class Door:
    """A listening launcher.

    Args:
        respond: answers what people ask.
        voter: answers what other launchers ask; without one they are not listened to.
        refused: called for each peer that does not hold the job's token.
    """

    def __init__(
        self,
        respond: Respond,
        voter: Voter | None = None,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._voter = voter
        self._refused = refused
        self.launchers: Launchers | None = None
        """The coordinator's shell, where this launcher hosts it."""
        self.address = ""
        """``host:port``."""
        self._respond = respond
        self._server: asyncio.Server | None = None
        self._guests: set[FrameProtocol] = set()
        self._sessions: set[FrameProtocol] = set()
        self._answers: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int, token: bytes) -> None:
        """Listen.

        Raises:
            UsageError: the address cannot be bound.
        """
        try:
            self._server = await serve(host, port, token, self._frame, self._lost)
        except OSError as error:
            raise UsageError(
                f"the control plane cannot listen on {host} port {port}: {error.strerror}; "
                "choose a free port or end what uses it"
            ) from None
        self.address = address_of(host, self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening; say what was asked last."""
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*self._answers)
        for connection in list(self._guests):
            connection.close()

    def _frame(self, connection: FrameProtocol, frame: bytes) -> None:
        """Pass a frame on; the first one of a session says that the others are, too.

        They begin with a number, and so with any byte.
        """
        if connection in self._sessions:
            self._carry(connection, frame)
        elif frame[:1] == MARK:
            self._guests.add(connection)
            self._ask(connection, REQUEST.decode(frame[1:]))
        elif frame.startswith(PEER_STARTS) and self._voter is not None:
            self._guests.add(connection)
            self._peer(connection, frame, self._voter)
        elif connection not in self._guests:
            self._sessions.add(connection)
            self._carry(connection, frame)
        else:
            raise ProtocolError("who asks something is no launcher's session")

    def _carry(self, connection: FrameProtocol, frame: bytes) -> None:
        if self.launchers is None:
            raise ProtocolError("this launcher does not coordinate: look the address up again")
        self.launchers.frame(connection, frame)

    def _peer(self, connection: FrameProtocol, frame: bytes, voter: Voter) -> None:
        match PEER.decode(frame):
            case Elected(leader):
                voter.heard(leader)
            case _:
                connection.send(PEER.encode(voter.answer))

    def _lost(self, connection: FrameProtocol) -> None:
        self._sessions.discard(connection)
        if not connection.trusted:
            if connection.broken:  # others came and went without a word, as probes of a port do
                self._refused()
        elif connection in self._guests:
            self._guests.discard(connection)
        elif self.launchers is not None:
            self.launchers.lost(connection)

    def _ask(self, connection: FrameProtocol, request: Request) -> None:
        async def answer() -> None:
            connection.send(ANSWER.encode(await self._respond(request)))

        task = asyncio.ensure_future(answer())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)
