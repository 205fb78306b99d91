"""Real gloo processes that a test drives by name, and that it may kill or freeze.

Each rank is a process with the communicators of one worker. Its mailbox is connected to those of
the others through the test's process, which stands for launchers and coordinator: it forwards
blobs and nothing else. A test sends commands (the methods of ``rank.Worker``) and collects
replies; a rank that does not reply is named by number, with what it wrote to stderr.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from dssync.worker.gloo import GlooSettings
from integration.communicator.rank import (
    BUILD_SECONDS,
    HANG_SECONDS,
    Nccl,
    Settings,
    communicator,
    run,
)

__all__ = ["Nccl", "Rank", "Ranks", "communicator", "running"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["dssync.worker.gloo"])


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
        self.process = _context.Process(target=run, args=arguments, daemon=True)
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
