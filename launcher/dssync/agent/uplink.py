"""A launcher's way to the coordinator: the same two verbs in this process and over the network.

A remote uplink outlives its connection: it reconnects at once and goes on where it was. Where
the coordinator has meanwhile given this launcher up, ``on_fresh`` says so, because whatever the
members were waiting for will never come.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from dssync.agent.host import CoordinatorHost
from dssync.control import messages as m
from dssync.control.events import Received
from dssync.control.session import Session
from dssync.control.transport import FrameProtocol, connect
from dssync.errors import DssyncError

RETRY_SECONDS = 0.02
GIVE_UP_SECONDS = 60.0


class Uplink(Protocol):
    """Where a launcher's messages go."""

    def send(self, message: m.FromLauncher) -> None:
        """Send a message; it arrives unless the coordinator gives this launcher up."""

    async def close(self) -> None:
        """Send nothing more."""


class LocalUplink:
    """To the coordinator in this process."""

    def __init__(
        self, host: CoordinatorHost, hello: m.Hello, deliver: Callable[[m.ToLauncher], None]
    ):
        self._host = host
        self._slot = hello.slot
        host.attach(hello, deliver)

    def send(self, message: m.FromLauncher) -> None:
        """See ``Uplink.send``."""
        self._host.handle(Received(self._slot, message))

    async def close(self) -> None:
        """See ``Uplink.close``."""


@dataclass(frozen=True)
class Handlers:
    """What a remote uplink reports."""

    deliver: Callable[[m.ToLauncher], None]
    on_fresh: Callable[[], None]
    """The coordinator did not know this launcher any more."""
    on_given_up: Callable[[str], None]
    """No coordinator could be reached for too long."""
    on_answered: Callable[[float], None]
    """The coordinator answered a heartbeat after so many seconds."""


class RemoteUplink:
    """To the coordinator of another launcher."""

    def __init__(
        self, find: Callable[[], Awaitable[str]], token: bytes, hello: m.Hello, handlers: Handlers
    ) -> None:
        """Start to connect.

        Args:
            find: returns the coordinator's ``host:port``; asked before each attempt.
            token: the job's shared secret.
            hello: what introduces this launcher.
            handlers: what to call.
        """
        self._find = find
        self._token = token
        self._hello = hello
        self._handlers = handlers
        self._session = Session()
        self._known = False
        self._connection: FrameProtocol | None = None
        self._beat_seconds: float | None = None
        """When the heartbeat went out that was not answered yet."""
        self._lost = asyncio.Event()
        self._task = asyncio.create_task(self._keep_connected())

    def send(self, message: m.FromLauncher) -> None:
        """See ``Uplink.send``."""
        payload = m.LAUNCHER.encode(message)
        if isinstance(message, m.Heartbeat):
            # Not worth sending again: the next one says the same.
            frame = self._session.passing(payload)
            self._beat_seconds = time.monotonic()
        else:
            frame = self._session.number(payload)
        if self._connection is not None:
            self._connection.send(frame)

    async def close(self) -> None:
        """See ``Uplink.close``."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._connection is not None:
            self._connection.close()

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            give_up = loop.time() + GIVE_UP_SECONDS
            while not await self._try_once():
                if loop.time() > give_up:
                    self._handlers.on_given_up("no coordinator answered")
                    return
                await asyncio.sleep(RETRY_SECONDS)
            await self._lost.wait()

    async def _try_once(self) -> bool:
        self._lost.clear()
        introduced = False
        connection: FrameProtocol | None = None

        def frame(payload: bytes) -> None:
            nonlocal introduced
            if introduced:
                self._frame(connection, payload)
            else:
                introduced = True
                self._accepted(connection, json.loads(payload) is True)

        try:
            host, _, port = (await self._find()).rpartition(":")
            connection = await connect(host, int(port), self._token, frame, self._disconnected)
        except (OSError, ValueError, DssyncError):
            return False
        hello = m.LAUNCHER.encode(self._hello).decode()
        connection.send(json.dumps([hello, self._known]).encode())
        return True

    def _accepted(self, connection: FrameProtocol | None, resumed: bool) -> None:
        if self._known and not resumed:
            self._session = Session()
            self._handlers.on_fresh()
        self._known = True
        if connection is not None:
            connection.send(self._session.passing())

    def _frame(self, connection: FrameProtocol | None, frame: bytes) -> None:
        payload = self._session.accept(frame)
        if self._connection is None and connection is not None:
            # The first frame told what the coordinator has; only now is the rest in order.
            self._connection = connection
            for each in self._session.resume():
                connection.send(each)
        if payload:
            self._handlers.deliver(m.TO_LAUNCHER.decode(payload))  # type: ignore[arg-type]
        elif self._beat_seconds is not None:
            self._handlers.on_answered(time.monotonic() - self._beat_seconds)
            self._beat_seconds = None

    def _disconnected(self) -> None:
        self._connection = None
        self._lost.set()
