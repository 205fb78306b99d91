"""Real gloo processes that a test drives by name, and that it may kill or freeze.

Each rank is a process with the communicators of one worker. Its mailbox is connected to those of
the others through the test's process, which stands for launchers and coordinator: it forwards
blobs and nothing else. A test sends commands (the methods of ``Worker``) and collects replies; a
rank that does not reply is named by number, with what it wrote to stderr.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch
from torch._C._distributed_c10d import _dump_fr_trace_json

from dssync.contract import EXIT_REJOIN
from dssync.errors import BuildCancelledError
from dssync.worker.communicator import Backend, Communicator, Communicators, Group
from dssync.worker.gloo import GlooBackend, GlooSettings
from dssync.worker.reaper import Reaper
from dssync.worker.store import Mailbox

HANG_SECONDS = 30.0
"""A rank that takes longer for a command is reported as hung."""
BUILD_SECONDS = 90.0
"""NCCL loads its kernels with a process' first group."""
NCCL_VARIABLES = {
    "NCCL_SOCKET_IFNAME": "lo",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    "TORCH_NCCL_RETHROW_CUDA_ERRORS": "0",
}
"""What a launcher tells its workers, and that all are on this machine."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["dssync.worker.gloo"])


def key_of(rank: int) -> str:
    return f"member-{rank}"


def communicator(communicator_id: str, ranks: Iterable[int]) -> Communicator:
    return Communicator(communicator_id, tuple(key_of(rank) for rank in ranks))


@dataclass(frozen=True)
class Usage:
    """What a process holds of the system after its helper threads have finished."""

    descriptors: int
    threads: int


@dataclass(frozen=True)
class Nccl:
    """Settings of ranks that sum over NCCL, all on the first GPU."""


Settings = GlooSettings | Nccl


@dataclass
class _Operation:
    tensor: torch.Tensor
    ended: threading.Event
    error: Exception | None = None


class Worker:
    """One rank: its methods are the commands of the tests."""

    def __init__(self, rank: int, settings: Settings, connection: Connection) -> None:
        self._device = torch.device("cuda", 0) if isinstance(settings, Nccl) else None
        self._connection = connection
        self._sending = threading.Lock()
        self.mailbox = Mailbox(lambda *blob: self._send("blob", blob))
        self.reaper = Reaper()
        backend = _backend(rank, settings, self.reaper)
        self.communicators = Communicators(backend, self.mailbox, self.reaper)
        self.groups: dict[str, Group] = {}
        self.operations: dict[str, _Operation] = {}

    def serve(self) -> None:
        commands: SimpleQueue[tuple[str, tuple[Any, ...]]] = SimpleQueue()
        threading.Thread(target=self._receive, args=(commands,), daemon=True).start()
        while True:
            name, arguments = commands.get()
            try:
                self._send("reply", getattr(self, name)(*arguments))
            except Exception as error:
                error.add_note(traceback.format_exc())
                self._send("error", error)

    def _receive(self, commands: SimpleQueue[tuple[str, tuple[Any, ...]]]) -> None:
        with contextlib.suppress(EOFError):
            while True:
                kind, content = self._connection.recv()
                match kind:
                    case "blob":
                        self.mailbox.deliver(*content)
                    case "discard":
                        self.mailbox.discard(content)
                    case _:
                        commands.put(content)
        os._exit(0)

    def _send(self, kind: str, content: object) -> None:
        with self._sending:
            self._connection.send((kind, content))

    # --- Commands -------------------------------------------------------------------------

    def prepare(self, spec: Communicator) -> None:
        self.communicators.prepare(spec)

    def build(self, spec: Communicator) -> None:
        self.groups[spec.id] = self.communicators.prepare(spec).result(BUILD_SECONDS)

    def begin(
        self,
        communicator_id: str,
        value: float,
        size: int = 1000,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Starts the all-reduce of a tensor full of one value."""
        tensor = torch.full((size,), value, dtype=dtype, device=self._device)
        operation = _Operation(tensor, threading.Event())

        def on_done(error: Exception | None) -> None:
            operation.error = error
            operation.ended.set()

        self.operations[communicator_id] = operation
        self.groups[communicator_id].allreduce(operation.tensor).when_done(on_done)

    def end(self, communicator_id: str) -> set[float]:
        """Waits for the all-reduce; returns the different values in the tensor."""
        operation = self.operations[communicator_id]
        assert operation.ended.wait(HANG_SECONDS), "the operation neither finished nor failed"
        if operation.error is not None:
            raise operation.error
        return self.values(communicator_id)

    def values(self, communicator_id: str) -> set[float]:
        return set(self.operations[communicator_id].tensor.unique().tolist())

    def allreduce(self, *arguments: Any) -> set[float]:
        self.begin(*arguments)
        return self.end(arguments[0])

    def poll(self, communicator_id: str, count: int) -> None:
        """Ends all-reduces one after the other by asking again and again."""
        for _ in range(count):
            operation = self.groups[communicator_id].allreduce(torch.ones(100_000))
            while not operation.wait(0.0):
                pass

    def wait_and_abandon(self, communicator_id: str) -> None:
        """Waits inside an all-reduce that another thread gives up."""
        operation = self.groups.pop(communicator_id).allreduce(torch.ones(10))
        assert not operation.wait(0.001)
        threading.Timer(0.05, self.communicators.abandon, (communicator_id,)).start()
        operation.wait(HANG_SECONDS)

    def allreduce_and_close(self, communicator_id: str) -> None:
        """Retires a communicator in the callback of its only operation."""
        ended = threading.Event()

        def on_done(error: Exception | None) -> None:
            self.communicators.retire(communicator_id)
            ended.set()

        self.groups.pop(communicator_id).allreduce(torch.ones(10)).when_done(on_done)
        assert ended.wait(HANG_SECONDS), "the callback was not called"

    def abandon(self, communicator_id: str) -> float:
        """Abandons; returns how long that took, in seconds."""
        started = time.perf_counter()
        self.communicators.abandon(communicator_id)
        return time.perf_counter() - started

    def policies(self, thread_name: str) -> set[int]:
        """Return the scheduling policies of this process' threads of a name."""
        tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
        return {
            os.sched_getscheduler(task)
            for task in tasks
            if Path(f"/proc/self/task/{task}/comm").read_text().strip() == thread_name
        }

    def device_bytes(self) -> int:
        """Return what of the GPU is in use, by all processes."""
        free, total = torch.cuda.mem_get_info()
        return total - free

    def retire(self, communicator_id: str) -> None:
        self.communicators.retire(communicator_id)

    def cancel(self, spec: Communicator) -> float:
        """Abandons a build; returns after how many seconds its thread had ended."""
        pending = self.communicators.prepare(spec)
        started = time.perf_counter()
        self.communicators.abandon(spec.id)
        _join_builds()
        seconds = time.perf_counter() - started
        assert isinstance(pending.exception(0), BuildCancelledError)
        return seconds

    def usage(self, expected: Usage | None = None) -> Usage:
        """What the process holds when everything given up is destroyed."""
        _join_builds()
        assert self.reaper.wait_idle(HANG_SECONDS), "the reaper did not finish"
        # The kernel lists a thread a moment longer than joining it takes, and tells nobody.
        deadline = time.monotonic() + 2
        while (usage := _usage()) != expected and expected and time.monotonic() < deadline:
            time.sleep(0.001)
        return usage

    def recorded(self) -> int:
        """How many operations torch keeps a record of."""
        recorded = json.loads(_dump_fr_trace_json(includeCollectives=True, onlyActive=False))
        return len(recorded.get("entries", ()))

    def counts(self) -> Any:
        return self.communicators.counts()

    def kept_blobs(self) -> int:
        return len(self.mailbox)


def _backend(rank: int, settings: Settings, reaper: Reaper) -> Backend:
    if isinstance(settings, GlooSettings):
        return GlooBackend(key_of(rank), reaper, settings)
    from dssync.worker.nccl import NcclBackend
    from dssync.worker.ncclgroup import connector

    def on_hung(name: str) -> None:
        os._exit(EXIT_REJOIN)

    return NcclBackend(key_of(rank), reaper, connector(torch.device("cuda", 0)), on_hung)


def _usage() -> Usage:
    return Usage(len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))


def _join_builds() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("dssync-build"):
            thread.join(HANG_SECONDS)


def _run(rank: int, settings: Settings, connection: Connection, stderr: Path) -> None:
    if isinstance(settings, Nccl):
        # NCCL takes two ranks of one host on one device for a mistake.
        os.environ |= {**NCCL_VARIABLES, "NCCL_HOSTID": str(rank)}
    with stderr.open("wb") as file:
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    Worker(rank, settings, connection).serve()


class Rank:
    """The test's end of one rank."""

    def __init__(self, number: int, settings: Settings, folder: Path) -> None:
        self._number = number
        self._stderr = folder / f"rank-{number}.stderr"
        self._replies: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._command = "nothing"
        self.connection, other_end = _context.Pipe()
        self._sending = threading.Lock()
        arguments = (number, settings, other_end, self._stderr)
        self.process = _context.Process(target=_run, args=arguments, daemon=True)
        self.process.start()
        other_end.close()

    def start(self, command: str, *arguments: object) -> None:
        self._command = command
        self.send("command", (command, arguments))

    def send(self, kind: str, content: object) -> None:
        with self._sending:
            self.connection.send((kind, content))

    def take(self, kind: str, content: object) -> None:
        self._replies.put((kind, content))

    def reply(self) -> Any:
        try:
            kind, content = self._replies.get(timeout=BUILD_SECONDS)
        except Empty:
            raise AssertionError(f"rank {self._number} hung in {self._what()}") from None
        if kind == "error":
            raise content
        if kind == "died":
            self.process.join(HANG_SECONDS)
            code = self.process.exitcode
            raise AssertionError(f"rank {self._number} died with {code} in {self._what()}")
        return content

    def call(self, command: str, *arguments: object) -> Any:
        self.start(command, *arguments)
        return self.reply()

    def kill(self) -> None:
        self.process.kill()
        self.process.join(HANG_SECONDS)

    def freeze(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def stderr(self) -> str:
        return self._stderr.read_text() if self._stderr.exists() else ""

    def _what(self) -> str:
        return f"{self._command}; stderr: {self.stderr()!r}"


class Ranks:
    """All ranks of a test; forwards their blobs."""

    def __init__(self, size: int, settings: Settings, folder: Path) -> None:
        self._ranks = [Rank(number, settings, folder) for number in range(size)]
        self.blobs: SimpleQueue[bytes] = SimpleQueue()
        """What ranks have pushed, in order."""
        for rank in self._ranks:
            threading.Thread(target=self._forward, args=(rank,), daemon=True).start()

    def __getitem__(self, number: int) -> Rank:
        return self._ranks[number]

    def call(self, numbers: Iterable[int], command: str, *arguments: object) -> list[Any]:
        """Runs one command on several ranks at the same time."""
        called = [self._ranks[number] for number in numbers]
        for rank in called:
            rank.start(command, *arguments)
        return [rank.reply() for rank in called]

    def allreduce(
        self, numbers: Iterable[int], communicator_id: str, size: int = 1000
    ) -> list[Any]:
        """All-reduces 2 to the power of its number from each rank, so that a sum tells all."""
        called = list(numbers)
        for number in called:
            self[number].start("allreduce", communicator_id, 2.0**number, size)
        return [self[number].reply() for number in called]

    def deliver(self, number: int, communicator_id: str, key: str, value: bytes) -> None:
        """Brings a blob to one rank, as if a mate had pushed it."""
        self[number].send("blob", (communicator_id, key, value))

    def close(self) -> None:
        for rank in self._ranks:
            rank.kill()
            rank.connection.close()

    def _forward(self, rank: Rank) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, content = rank.connection.recv()
                if kind == "blob":
                    self._push(rank, content)
                else:
                    rank.take(kind, content)
        rank.take("died", None)

    def _push(self, sender: Rank, blob: tuple[str, str, bytes]) -> None:
        for mate in self._ranks:
            if mate is not sender:
                with contextlib.suppress(OSError):
                    mate.send("blob", blob)
        self.blobs.put(blob[2])


@contextlib.contextmanager
def running(size: int, folder: Path, settings: Settings | None = None) -> Iterator[Ranks]:
    """Ranks for the time of a test; at its end nobody may have written to stderr."""
    ranks = Ranks(size, settings or GlooSettings(), folder)
    try:
        yield ranks
        written = {number: ranks[number].stderr() for number in range(size)}
        assert not any(written.values()), f"written to stderr, by rank: {written}"
    finally:
        ranks.close()
