"""A launcher's way to the coordinator of one term: in this process or over the network.

A remote uplink outlives its connection: it reconnects at once and goes on where it was. Where
the coordinator has meanwhile given this launcher up, ``on_fresh`` says so, because whatever the
members were waiting for will never come. Another term is another uplink, except at a fixed
endpoint, whose host may come back.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dssync.agent.awake import AwakeClock
from dssync.agent.host import FENCED, CoordinatorHost
from dssync.control import messages as m
from dssync.control.address import endpoint_of
from dssync.control.events import Received
from dssync.control.peers import Leader
from dssync.control.session import Session
from dssync.control.transport import FrameProtocol, connect
from dssync.errors import DssyncError, ProtocolError

RETRY_SECONDS = 0.02
NAME_RETRY_SECONDS = 0.2
"""The same, where the coordinator's name does not resolve: others ask that server, too."""


class Uplink(Protocol):
    """Where a launcher's messages go."""

    @property
    def trouble(self) -> str:
        """Why the last attempt to connect failed; nothing if it did not."""

    def send(self, message: m.FromLauncher) -> None:
        """Send a message; it arrives unless the coordinator gives this launcher up."""

    def end(self) -> None:
        """Deliver and report nothing more, from this moment on: another one is in its place.

        What a coordinator says carries no term.
        """

    async def close(self) -> None:
        """End, and wait until all is closed."""


class LocalUplink:
    """To the coordinator in this process."""

    trouble = ""

    def __init__(
        self, host: CoordinatorHost, hello: m.Hello, deliver: Callable[[m.ToLauncher], None]
    ):
        self._host = host
        self._slot = hello.slot
        self._deliver = deliver
        self._ended = False
        host.attach(hello, self._pass_on)

    def send(self, message: m.FromLauncher) -> None:
        """See ``Uplink.send``."""
        self._host.handle(Received(self._slot, message))

    def end(self) -> None:
        """See ``Uplink.end``."""
        self._ended = True

    async def close(self) -> None:
        """See ``Uplink.close``."""
        self.end()

    def _pass_on(self, message: m.ToLauncher) -> None:
        if not self._ended:
            self._deliver(message)


@dataclass(frozen=True)
class LinkEvents:
    """What a remote uplink reports."""

    deliver: Callable[[m.ToLauncher], None]
    on_linked: Callable[[int, bool], None]
    """It is connected to the coordinator of a term; for the first time or again."""
    on_lost: Callable[[], None]
    """The connection ended, or the coordinator is silent for longer than its lease."""
    on_fresh: Callable[[], None]
    """The coordinator did not know this launcher any more."""
    on_fenced: Callable[[], None]
    """This pod has been replaced: its slot is another's."""
    on_answered: Callable[[float], None]
    """The coordinator answered a heartbeat after so many seconds."""


class RemoteUplink:
    """To the coordinator of another launcher.

    Args:
        leader: the coordinator.
        token: the job's shared secret.
        hello: returns what introduces this launcher.
        events: what to call.
        lease_seconds: silence after which the coordinator counts as lost.
    """

    def __init__(
        self,
        leader: Leader,
        token: bytes,
        hello: Callable[[], m.Hello],
        events: LinkEvents,
        lease_seconds: float,
    ) -> None:
        self._leader = leader
        self._token = token
        self._hello = hello
        self._events = events
        self._lease_seconds = lease_seconds
        self._clock = AwakeClock(time.monotonic)
        self._heard_seconds = self._clock.now()
        self._session = Session()
        self._term = 0
        """Of the coordinator that answered last; 0 before that."""
        self._closed = False
        self._linked = False
        self._attempt = 0
        """Number of the latest connection; what happens to earlier ones is no news."""
        self._connection: FrameProtocol | None = None
        self._beat_seconds: float | None = None
        """When the heartbeat went out that was not answered yet."""
        self._lost = asyncio.Event()
        self._trouble: Exception | None = None
        self._task = asyncio.create_task(self._keep_connected())

    @property
    def trouble(self) -> str:
        """See ``Uplink.trouble``."""
        if self._trouble is None:
            return ""
        return f"{getattr(self._trouble, 'strerror', '') or self._trouble}" or "no answer"

    def send(self, message: m.FromLauncher) -> None:
        """See ``Uplink.send``."""
        payload = m.LAUNCHER.encode(message)
        if isinstance(message, m.Heartbeat):
            # Not worth sending again: the next one says the same.
            frame = self._session.passing(payload)
            self._beat_seconds = time.monotonic()
            self._check_silence()
        else:
            frame = self._session.number(payload)
        if self._connection is not None:
            self._connection.send(frame)

    def end(self) -> None:
        """See ``Uplink.end``."""
        self._closed = True
        self._task.cancel()
        if self._connection is not None:
            self._connection.close()

    async def close(self) -> None:
        """See ``Uplink.close``."""
        self.end()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def _check_silence(self) -> None:
        """Give a connection up on which nothing comes any more."""
        silent = self._clock.now() - self._heard_seconds
        if self._connection is not None and silent > self._lease_seconds:
            connection = self._connection
            self._disconnected(self._attempt)
            connection.close()

    async def _keep_connected(self) -> None:
        while True:
            if await self._try_once():
                await self._lost.wait()
            else:
                unknown = isinstance(self._trouble, socket.gaierror)
                await asyncio.sleep(NAME_RETRY_SECONDS if unknown else RETRY_SECONDS)

    async def _try_once(self) -> bool:
        self._lost.clear()
        self._attempt += 1
        attempt, introduced = self._attempt, False
        connection: FrameProtocol | None = None

        def frame(payload: bytes) -> None:
            nonlocal introduced
            if self._closed:
                raise ProtocolError("this uplink has been replaced")
            if introduced:
                self._frame(connection, payload)
            else:
                introduced = True
                self._accepted(connection, payload)

        try:
            host, port = endpoint_of(self._leader.address)
            connection = await connect(
                host, port, self._token, frame, lambda: self._disconnected(attempt)
            )
        except (OSError, DssyncError) as error:
            self._trouble = error
            return False
        self._trouble = None
        hello = m.LAUNCHER.encode(self._hello()).decode()
        connection.send(json.dumps([hello, self._session.name, self._leader.term]).encode())
        return True

    def _accepted(self, connection: FrameProtocol | None, payload: bytes) -> None:
        name, term = json.loads(payload)
        if name == FENCED:
            self._events.on_fenced()
            return
        if not (isinstance(name, int) and isinstance(term, int)):
            raise ProtocolError(f"a coordinator answers a hello with {payload[:80]!r}")
        first, self._term = term != self._term, term
        other = name != self._session.name
        if self._session.name and other:
            self._session = Session()
        self._session.name = name
        self._linked, self._heard_seconds = True, self._clock.now()
        if connection is not None:
            connection.send(self._session.passing())
        self._events.on_linked(term, first)
        if other and not first:
            self._events.on_fresh()

    def _frame(self, connection: FrameProtocol | None, frame: bytes) -> None:
        self._heard_seconds = self._clock.now()
        payload = self._session.accept(frame)
        if self._connection is None and connection is not None:
            # The first frame told what the coordinator has; only now is the rest in order.
            self._connection = connection
            for each in self._session.resume():
                connection.send(each)
        if payload:
            self._events.deliver(m.TO_LAUNCHER.decode(payload))
        elif self._beat_seconds is not None:
            self._events.on_answered(time.monotonic() - self._beat_seconds)
            self._beat_seconds = None

    def _disconnected(self, attempt: int) -> None:
        if attempt != self._attempt:
            return
        self._attempt += 1
        was_linked, self._linked, self._connection = self._linked, False, None
        self._lost.set()
        if was_linked and not self._closed:
            self._events.on_lost()
