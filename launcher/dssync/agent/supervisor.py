"""Starts workers through the fork-server, learns of their exits and stops them.

The fork-server is started with the first worker, and again when it died; its workers died with
it. Nothing here restarts a worker: each exit carries what the pure ``after_exit`` advises, and
the launcher acts, because a new incarnation is also news for the control plane.
"""

import asyncio
import contextlib
import functools
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dssync.agent import channel
from dssync.agent.environment import worker_environment
from dssync.agent.forkclient import ForkClient, ForkServerLostError, Listener
from dssync.agent.logs import LogFiles, tail
from dssync.agent.restart import Action, after_exit
from dssync.agent.settings import Settings

PRELOAD: Final = ("numpy", "torch", "torch._dynamo", "dssync.worker.groupsync")
"""What each worker would import anyway; an optimizer's first step imports ``torch._dynamo``."""
ALLOCATOR: Final = {"MALLOC_ARENA_MAX": "1"}
"""Builds and transfers run in threads of their own; with an arena for each, a worker's resident
memory crept up by 1 MB in 1,000 rounds of churn, with two by 40 to 60 kB, with one by 20 kB
(measured). A script whose own threads allocate much sets another number."""
_REPORT_BYTES: Final = 1 << 14


@dataclass(frozen=True)
class WorkerSpec:
    """One start of one worker."""

    local_rank: int
    """Index of the worker in its launcher."""
    restarts: int = 0
    """How often this worker was started before."""
    variables: tuple[str, ...] = ()
    """``NAME=VALUE`` that it starts with besides; they win."""

    def again(self) -> "WorkerSpec":
        """Return the specification of the next start."""
        return replace(self, restarts=self.restarts + 1)


class WorkerProcess:
    """A running worker, or one that ran."""

    def __init__(self, spec: WorkerSpec, pid: int, pidfd: int, link: socket.socket) -> None:
        """Describe a worker that was just started.

        Args:
            spec: What it was started from.
            pid: Its process id, also that of its process group.
            pidfd: Descriptor of the process, owned from here on.
            link: The launcher's end of the link.
        """
        self.spec: Final = spec
        self.pid: Final = pid
        self.link: Final = link
        """Non-blocking stream socket; the launcher reads it and closes it."""
        self._pidfd = pidfd

    def signal(self, number: int) -> None:
        """Send a signal to the worker; after its exit this does nothing."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def forget(self) -> None:
        """Release the process's descriptor."""
        os.close(self._pidfd)
        self._pidfd = -1


@dataclass(frozen=True)
class WorkerExit:
    """The end of a worker."""

    worker: WorkerProcess
    """Which one; its link may still hold bytes that it sent."""
    returncode: int
    """Exit code, or minus the number of the signal that ended it."""
    at_seconds: float
    """When it was seen, on the clock of ``time.monotonic``."""
    action: Action
    """What the rules of restarting advise."""
    report: str
    """Traceback of the exception that ended it; empty without one."""
    stderr_path: Path | None
    """The file that its stderr went to, if it went to one."""

    @property
    def error(self) -> str:
        """The traceback, else the end of stderr's file; complete after ``stop``."""
        return self.report or (tail(self.stderr_path) if self.stderr_path else "")


@dataclass(frozen=True)
class _Outfit:
    """What is made for a worker before it runs."""

    spec: WorkerSpec
    link: socket.socket
    report: int
    stderr_path: Path | None

    def discard(self) -> None:
        self.link.close()
        os.close(self.report)


class Supervisor:
    """The workers of one launcher."""

    def __init__(
        self,
        settings: Settings,
        on_exit: Callable[[WorkerExit], None],
        preload: Sequence[str] = PRELOAD,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            settings: What the launcher was told.
            on_exit: Called from the event loop, once for each worker that ended.
            preload: Modules that the fork-server imports if installed and workers are Python.
        """
        self._settings = settings
        self._on_exit = on_exit
        self._preload = () if settings.command.kind == "program" else preload
        self._files = LogFiles(settings)
        self._running: dict[int, tuple[WorkerProcess, _Outfit]] = {}
        self._unannounced: dict[WorkerProcess, WorkerExit | None] = {}
        self._client: ForkClient | None = None
        self._stopping = False
        self._one_request = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def workers(self) -> Collection[WorkerProcess]:
        """The workers that run."""
        return [worker for worker, _ in self._running.values()]

    async def start(self, spec: WorkerSpec) -> WorkerProcess:
        """Start one worker. Its exit is reported only after this has returned.

        Raises:
            OSError: The system gave no process, file or descriptor.
            ForkServerLostError: The fork-server ended before the worker ran.
        """
        # Shielded: a request whose reply nobody took would answer the next one.
        worker = await asyncio.shield(self._start(spec))
        exit_ = self._unannounced.pop(worker)
        if exit_ is not None:
            asyncio.get_running_loop().call_soon(self._on_exit, exit_)
        return worker

    async def stop(self, grace_seconds: float) -> None:
        """End all workers, by SIGTERM and after the grace by SIGKILL, and the fork-server.

        Starts that are under way fail; there is no start afterwards.
        """
        self._stopping = True
        self._signal_all(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                await self._idle.wait()
        except TimeoutError:
            self._signal_all(signal.SIGKILL)
            await self._idle.wait()
        if self._client is not None:
            await self._client.close()
        await asyncio.to_thread(self._files.close)

    async def _start(self, spec: WorkerSpec) -> WorkerProcess:
        async with self._one_request:
            client = await self._open_client()
            streams = self._files.open(spec.local_rank, spec.restarts)
            link, workers_link = socket.socketpair()
            link.setblocking(False)
            outfit = _Outfit(spec, link, os.memfd_create("report"), streams.stderr_path)
            descriptors = [workers_link.detach(), os.dup(outfit.report), *streams.descriptors]
            started: list[WorkerProcess] = []
            register = functools.partial(self._register, outfit, started.append)
            try:
                await client.fork(self._request(spec), descriptors, register)
            except (OSError, ForkServerLostError):
                outfit.discard()
                raise
            finally:
                channel.close_all(descriptors)
            return started[0]

    async def _open_client(self) -> ForkClient:
        if self._stopping:
            raise ForkServerLostError("workers are being stopped: none is started any more")
        if self._client is not None:
            if not self._client.lost:
                return self._client
            await self._client.close()
        self._client = ForkClient(self._preload, Listener(self._exited, self._lost))
        await self._client.open({**ALLOCATOR, **self._settings.environment})
        return self._client

    def _request(self, spec: WorkerSpec) -> channel.Start:
        command = self._settings.command
        environment = worker_environment(self._settings, spec.local_rank, spec.restarts)
        environment |= dict(each.split("=", 1) for each in spec.variables)
        return channel.Start(command.kind, command.target, list(command.arguments), environment)

    def _register(
        self, outfit: _Outfit, started: Callable[[WorkerProcess], None], pid: int, pidfd: int
    ) -> None:
        worker = WorkerProcess(outfit.spec, pid, pidfd, outfit.link)
        self._running[pid] = worker, outfit
        self._unannounced[worker] = None
        self._idle.clear()
        started(worker)

    def _exited(self, exit_: channel.Exited) -> None:
        worker, outfit = self._running.pop(exit_.pid)
        worker.forget()
        spec, settings = worker.spec, self._settings.supervision
        limit, codes = settings.max_restarts, settings.restart_codes
        action = after_exit(exit_.returncode, spec.restarts, limit, codes)
        report = os.pread(outfit.report, _REPORT_BYTES, 0).decode(errors="replace")
        os.close(outfit.report)
        if not self._running:
            self._idle.set()
        path = outfit.stderr_path
        self._announce(WorkerExit(worker, exit_.returncode, exit_.at_seconds, action, report, path))

    def _announce(self, exit_: WorkerExit) -> None:
        if exit_.worker in self._unannounced:
            self._unannounced[exit_.worker] = exit_
        else:
            self._on_exit(exit_)

    def _lost(self) -> None:
        for pid in list(self._running):
            # The kernel kills the workers themselves; what they started is in their groups.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            self._exited(channel.Exited(pid, -signal.SIGKILL, time.monotonic()))

    def _signal_all(self, number: int) -> None:
        for worker in self.workers:
            worker.signal(number)
