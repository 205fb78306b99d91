"""The coordinator without sockets: what its own work costs for a member and round.

``python -m benchmarks.control.alone 100 1000``. One process, a clock of its own that jumps from one
appointed time to the next, and processor time of the coordinator's calls alone, the least of some
runs. So it needs no quiet machine to tell what grows with the number of members: work, and memory
that is out of the cache when it is needed. What sockets and the event loop cost is not in it.
"""

import argparse
import asyncio
import gc
import heapq
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Final

from benchmarks.control.__main__ import ASSIGNMENTS_PER_SECOND, BEATS_PER_SECOND, SEED
from benchmarks.control.member import FakeMember
from dssync.agent.host import TICK_SECONDS, CoordinatorHost
from dssync.control.coordinator import Coordinator
from dssync.control.events import ControlSettings, Ticked

WARM_SECONDS: Final = 1.0


class Wire:
    """What the coordinator takes for a connection."""

    def __init__(self, member: FakeMember, dirty: deque["Wire"]) -> None:
        self.member = member
        self.frames: deque[bytes] = deque()
        self._dirty = dirty

    def send(self, frame: bytes) -> None:
        """Keep what the coordinator sends."""
        self.frames.append(frame)
        self._dirty.append(self)

    def close(self) -> None:
        """End nothing."""


class Alone:
    """A coordinator and its members in one process."""

    def __init__(self, size: int) -> None:
        self.now = 0.0
        self.used_seconds: defaultdict[str, float] = defaultdict(float)
        """Processor time of the coordinator, by what it did."""
        self._dirty: deque[Wire] = deque()
        settings = ControlSettings(desired=size, minimum=size, lease_seconds=60.0)
        self.host = CoordinatorHost(Coordinator(1, settings), lambda _: None, read=lambda: self.now)
        self.wires = [Wire(FakeMember(slot), self._dirty) for slot in range(size)]

    async def begin(self) -> None:
        """Bring all members into the first view, with data."""
        for wire in self.wires:
            await self.hear(wire, "hello", [wire.member.hello()])
        assert all(wire.member.is_ready for wire in self.wires)
        for wire in self.wires:
            await self.hear(wire, "data", wire.member.register())

    async def run(self, seconds: float) -> None:
        """Let members do rounds and launchers send heartbeats, each at its own even pace."""
        size, random_, first = len(self.wires), random.Random(SEED), self.now
        pause, beat = size / ASSIGNMENTS_PER_SECOND, size / BEATS_PER_SECOND
        agenda = [(first, -1, TICK_SECONDS)]
        agenda += [(first + random_.random() * pause, n, pause) for n in range(size)]
        agenda += [(first + n / BEATS_PER_SECOND, size + n, beat) for n in range(size)]
        heapq.heapify(agenda)
        while agenda[0][0] < first + seconds:
            due, number, every = agenda[0]
            heapq.heapreplace(agenda, (due + every, number, every))
            self.now = due
            wire = self.wires[number % size]
            if number < 0:
                await self._timed("tick", lambda: self.host.handle(Ticked()))
            elif number < size:
                await self.hear(wire, "message", wire.member.appoint(due))
            else:
                await self.hear(wire, "heartbeat", [wire.member.beat()])

    async def hear(self, wire: Wire, kind: str, frames: list[bytes]) -> None:
        """Let the coordinator take frames, and members what it says."""
        for frame in frames:
            await self._timed(kind, lambda frame=frame: self.host.frame(wire, frame))

    async def _timed(self, kind: str, act: Callable[[], None]) -> None:
        start = time.thread_time()
        act()
        self.used_seconds[kind] += time.thread_time() - start
        while self._dirty or await self._rests():
            wire = self._dirty.popleft()
            for frame in wire.member.take(wire.frames.popleft(), self.now):
                start = time.thread_time()
                self.host.frame(wire, frame)
                self.used_seconds["message"] += time.thread_time() - start

    async def _rests(self) -> bool:
        """Let the coordinator send what it has put off; tell whether that was anything."""
        start = time.thread_time()
        await asyncio.sleep(0)
        if self._dirty:  # Else it was the event loop alone.
            self.used_seconds["put off"] += time.thread_time() - start
        return bool(self._dirty)


async def measure(size: int, seconds: float) -> dict[str, float]:
    """Return microseconds per member and round, by what the coordinator did."""
    alone = Alone(size)
    await alone.begin()
    await alone.run(WARM_SECONDS)
    alone.used_seconds.clear()
    for wire in alone.wires:
        wire.member.counts = True
    gc.collect()
    gc.disable()  # It would walk over the members, too.
    await alone.run(seconds)
    gc.enable()
    rounds = sum(wire.member.seen.assigned for wire in alone.wires)
    return {kind: 1e6 * used / rounds for kind, used in alone.used_seconds.items()}


def main() -> None:
    """Print the cost for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    for size in given.sizes:
        runs = [asyncio.run(measure(size, given.seconds)) for _ in range(given.runs)]
        least = min(runs, key=lambda run: sum(run.values()))
        parts = ", ".join(f"{kind} {used:.1f}" for kind, used in sorted(least.items()))
        print(f"{size} members: {sum(least.values()):.1f} µs a member and round ({parts})")


if __name__ == "__main__":
    main()
