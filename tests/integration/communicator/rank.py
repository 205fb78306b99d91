"""What runs in a rank's process: the communicators of one worker, driven by commands."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
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


def run(rank: int, settings: Settings, connection: Connection, stderr: Path) -> None:
    if isinstance(settings, Nccl):
        # NCCL takes two ranks of one host on one device for a mistake.
        os.environ |= {**NCCL_VARIABLES, "NCCL_HOSTID": str(rank)}
    with stderr.open("wb") as file:
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    Worker(rank, settings, connection).serve()
