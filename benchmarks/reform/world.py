"""Launchers and members under the hand of a benchmark.

Members tell what happens over a socket, so whoever waits here wakes up with the event itself.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from benchmarks.reform.records import PERIOD, History
from dssync import contract
from dssync.local.processes import run_folder

TRAINER: Final = str(Path(__file__).with_name("trainer.py"))
TIMEOUT_SECONDS: Final = 120.0
SETTLE_ROUNDS: Final = 2 * PERIOD
"""Rounds without a retry, with everybody, that make a world quiet."""


@dataclass(frozen=True)
class Shape:
    """Pods, workers and payload of a world; groups are of four in every round."""

    pods: int = 1
    workers_per_pod: int = 8
    payload_bytes: int = 1 << 20

    @property
    def workers(self) -> int:
        """All workers."""
        return self.pods * self.workers_per_pod


@dataclass
class World:
    """A run."""

    shape: Shape
    folder: Path
    uid: str
    history: History = field(default_factory=History)
    launchers: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    """Members that are known to be gone."""
    _grown: asyncio.Event = field(default_factory=asyncio.Event)
    _starts: int = 0

    @property
    def address(self) -> str:
        """Where members tell."""
        return str(self.folder / "tell")

    @property
    def members(self) -> list[str]:
        """Members that said they are ready and are not gone, in order of their places."""
        gone = self.lost.union(self.history.left)
        return sorted(m for m in self.history.ready if m not in gone)

    async def start_pod(self, slot: int) -> None:
        """Start the launcher of a slot."""
        self._starts += 1
        shape = self.shape
        where = (
            ("--standalone",)
            if shape.pods == 1
            else ("--nnodes", f"2:{shape.pods}", "--arbiter", f"file:{self.folder}/arbiter")
        )
        log = (self.folder / f"launcher.{slot}.{self._starts}.log").open("wb")
        with log:
            self.launchers[slot] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "dssync.cli", "run", *where, "--slot", str(slot)),
                *("--nproc-per-node", str(shape.workers_per_pod), "--max-restarts", "1000000"),
                *("--mode", "pool", "--group-size", "4"),
                *(TRAINER, self.address, str(shape.payload_bytes)),
                env={**os.environ, contract.ENV_JOB_UID: self.uid},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something that a member tells makes the condition true.

        Raises:
            RuntimeError: it did not within ``TIMEOUT_SECONDS``.
        """
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while not condition():
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            raise RuntimeError(f"waited in vain for {what}:\n{self.said()[-3000:]}") from None

    async def until_quiet(self, rounds: int = SETTLE_ROUNDS) -> None:
        """Wait until everybody has taken part in some rounds without a retry."""
        await self.until(lambda: self._quiet(rounds), "a quiet world")

    def _quiet(self, rounds: int) -> bool:
        members, history = self.members, self.history
        if len(members) < self.shape.workers:
            return False
        for member in members:
            recent = history.by_member.get(member, [])[-rounds:]
            steady = [r for r in recent if not r.attempts and r.world == self.shape.workers]
            if len(steady) < rounds:
                return False
        return True

    def steady_cycles(self, rounds: int = PERIOD) -> list[float]:
        """Return the times from round to round of all members of a quiet world."""
        cycles = []
        for member in self.members:
            times = [r.time for r in self.history.by_member[member][-rounds - 1 :]]
            cycles += [b - a for a, b in pairwise(times)]
        return cycles

    def of_slot(self, slot: int) -> list[str]:
        """Return the present members of a launcher."""
        return [m for m in self.members if m.startswith(f"{slot}.")]

    def kill(self, members: Sequence[str]) -> float:
        """Kill workers and return when."""
        killed = time.monotonic()
        for member in members:
            os.kill(self.history.pids[member], signal.SIGKILL)
        self.lost.update(members)
        return killed

    def said(self) -> str:
        """Return all that the launchers wrote."""
        logs = sorted(self.folder.glob("launcher.*.log"), key=lambda path: path.stat().st_mtime)
        return "".join(path.read_text(errors="replace") for path in logs)

    @property
    def coordinating_slot(self) -> int:
        """Slot of the launcher that coordinates."""
        for path in self.folder.glob("launcher.*.log"):
            if "dssync coordinating" in path.read_text(errors="replace"):
                return int(path.name.split(".")[1])
        raise RuntimeError(f"nobody coordinates:\n{self.said()}")

    def hear(self, line: bytes) -> None:
        """Take in one line of a member."""
        self.history.add(json.loads(line))
        self._grown.set()

    async def stop(self) -> None:
        """End all launchers; their workers die with them."""
        for launcher in self.launchers.values():
            with suppress(ProcessLookupError):
                launcher.send_signal(signal.SIGKILL)
            await launcher.wait()


class _Lines(asyncio.Protocol):
    """What one member tells, cut into lines; the rest of a line whose teller died is dropped."""

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self._hear = hear
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """Pass complete lines on."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._hear(line)


@asynccontextmanager
async def world(shape: Shape, slots: Sequence[int] | None = None) -> AsyncIterator[World]:
    """Run a world; nothing of it is left afterwards."""
    uid = f"bench-{os.urandom(8).hex()}"
    async with run_folder(uid) as folder:
        run = World(shape, folder, uid)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: _Lines(run.hear), run.address)
        try:
            for slot in range(shape.pods) if slots is None else slots:
                await run.start_pod(slot)
            yield run
        finally:
            await run.stop()
            server.close()
