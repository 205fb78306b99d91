"""The launcher's side of the fork-server: one process, one request at a time.

To be used from the launcher's main thread only: the kernel takes the end of the thread that
started the fork-server for the end of its parent.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dssync.agent import channel
from dssync.agent.child import signal_child
from dssync.errors import DssyncError

OnStarted = Callable[[int, int], None]
"""Called with pid and pidfd, before the exit of that process can be reported."""


class ForkServerLostError(DssyncError):
    """The fork-server ended while something was expected of it."""


@dataclass(frozen=True)
class Listener:
    """Who hears of exits and of the fork-server's own end; called from the event loop."""

    on_exit: Callable[[channel.Exited], None]
    on_lost: Callable[[], None]


class ForkClient:
    """A fork-server process and the channel to it."""

    def __init__(self, preload: Sequence[str], listener: Listener) -> None:
        """Prepare; nothing runs yet.

        Args:
            preload: Modules that the fork-server imports if they are installed.
            listener: Who hears what happens.
        """
        self._preload = preload
        self._listener = listener
        self._sock, self._server_sock = socket.socketpair()
        self._sock.setblocking(False)
        self._receiver = channel.Receiver(self._sock)
        self._on_started: OnStarted | None = None
        self._reply: asyncio.Future[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ready = False

    @property
    def lost(self) -> bool:
        """Whether the fork-server is gone; ``close`` is still to be called."""
        return self._sock.fileno() < 0

    async def open(self, environment: Mapping[str, str]) -> None:
        """Start the process and wait until it takes requests.

        Raises:
            ForkServerLostError: It ended instead; its own words are on stderr.
        """
        descriptor = self._server_sock.fileno()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-P", "-m", "dssync.agent.forkserver"),
            *(str(os.getpid()), str(descriptor), *self._preload),
            stdin=asyncio.subprocess.DEVNULL,
            env=environment,
            pass_fds=[descriptor],
            start_new_session=True,  # a terminal's Ctrl-C goes to the launcher alone
        )
        if self.lost:  # closed meanwhile
            await self.close()
            raise ForkServerLostError("the fork-server was closed before it was ready")
        self._server_sock.close()
        asyncio.get_running_loop().add_reader(self._sock, self._read)
        await self._next_reply()
        self._ready = True

    async def fork(
        self, request: channel.Start, descriptors: Sequence[int], on_started: OnStarted
    ) -> None:
        """Have a worker forked; returns when it runs.

        Raises:
            OSError: The system gave no process.
            ForkServerLostError: The fork-server ended first.
        """
        self._on_started = on_started
        frame = channel.encode(request, len(descriptors))
        try:
            sent = socket.send_fds(self._sock, [frame], descriptors)
            await asyncio.get_running_loop().sock_sendall(self._sock, frame[sent:])
        except ConnectionError:
            self._lose()
            raise ForkServerLostError("the fork-server ended before a worker started") from None
        await self._next_reply()

    async def close(self) -> None:
        """End the fork-server, and with it whatever workers are left."""
        self._hang_up()
        if self._process is None:
            return
        if not self._ready:
            # It has no workers yet, and would import to the end.
            signal_child(self._process, signal.SIGKILL)
        await self._process.wait()

    async def _next_reply(self) -> None:
        self._reply = asyncio.get_running_loop().create_future()
        await self._reply

    def _read(self) -> None:
        try:
            messages = self._receiver.receive()
        except BlockingIOError:
            return
        except (EOFError, ConnectionError):
            self._lose()
            return
        for message, descriptors in messages:
            self._handle(message, descriptors)

    def _handle(self, message: channel.Message, descriptors: Sequence[int]) -> None:
        if isinstance(message, channel.Exited):
            self._listener.on_exit(message)
            return
        if isinstance(message, channel.Started) and self._on_started is not None:
            self._on_started(message.pid, descriptors[0])
        error = OSError(message.reason) if isinstance(message, channel.Failed) else None
        self._answer(error)

    def _answer(self, error: Exception | None) -> None:
        if self._reply is None or self._reply.done():
            return
        if error is None:
            self._reply.set_result(None)
        else:
            self._reply.set_exception(error)

    def _lose(self) -> None:
        if self._hang_up():
            self._listener.on_lost()

    def _hang_up(self) -> bool:
        if self.lost:
            return False
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()
        self._server_sock.close()
        self._answer(ForkServerLostError("the fork-server ended before a worker started"))
        return True
