"""Connections between launchers over a network that delays, and is cut one way or both.

A connection is first-in first-out in each direction; connections are not ordered among each
other. Where the way is blocked, frames wait for its end, as a transport sends again what was not
acknowledged: late, but in order and once. A reset loses what is under way in both directions.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from simulation.scheduler import Process, Scheduler

HEAL_SECONDS = 2.0
"""What was under way when a way was cut is old when it arrives, and looks like news so long."""
CONNECT_SECONDS = 1.0
"""An attempt to connect that nobody answers is given up after this long."""


class Host(Process):
    """A process with an address in the network."""

    def __init__(self, scheduler: Scheduler, uid: str, rate: float = 1.0) -> None:
        super().__init__(scheduler, rate)
        self.uid = uid
        self.latency_seconds = 0.002
        self.extra_latency_seconds = 0.0

    def accept(self, end: "End") -> None:
        """Take a connection in."""


@dataclass
class Handlers:
    """What one end of a connection reports; in the process that it belongs to."""

    frame: Callable[[bytes], None]
    lost: Callable[[], None]


class End:
    """One end of a connection."""

    def __init__(self, network: "Network", host: Host) -> None:
        self.host = host
        self.open = True
        self.handlers: Handlers | None = None
        self.other: End
        self._network = network
        self._due = 0.0
        self._waiting: deque[bytes | None] = deque()

    def send(self, frame: bytes) -> None:
        if self.open:
            self._queue(frame)

    def close(self) -> None:
        """End the connection: the other side learns it after all that was sent before."""
        if self.open:
            self.open = False
            self._queue(None)
            self._network.forget(self)

    def reset(self) -> None:
        """Lose the connection, with what is under way, at both ends."""
        for end in (self, self.other):
            if end.open:
                end.open = False
                self._network.forget(end)
                delay = self._network.scheduler.random.uniform(0.0, 0.02)
                end.host.later(delay, end.tell_lost)

    def tell_lost(self) -> None:
        if self.handlers is not None:
            self.handlers.lost()

    def _queue(self, frame: bytes | None) -> None:
        scheduler = self._network.scheduler
        due = scheduler.now + self._network.latency(self.host, self.other.host)
        self._due = max(self._due, due)
        scheduler.at(self._due, partial(self._arrive, frame))

    def _arrive(self, frame: bytes | None) -> None:
        if self._waiting or self._network.is_blocked(self.host, self.other.host):
            self._waiting.append(frame)
            self._network.held[self] = None
        else:
            self.other.host.run(partial(self.other.take, frame))

    def release(self) -> None:
        """Deliver what has waited for a way to be free again."""
        waiting, self._waiting = self._waiting, deque()
        for frame in waiting:
            self.other.host.run(partial(self.other.take, frame))

    def take(self, frame: bytes | None) -> None:
        """Take in a frame, or the end of the connection."""
        if not self.open or self.handlers is None:
            return
        if frame is None:
            self.open = False
            self._network.forget(self)
            self.handlers.lost()
        else:
            self.handlers.frame(frame)


class Network:
    """Who reaches whom, and all open connections."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.hosts: dict[str, Host] = {}
        self.held: dict[End, None] = {}
        """Ends whose frames wait, in the order in which they began to; a set would have another
        order in each process."""
        self.healed_seconds = -HEAL_SECONDS
        """When a way was last free again."""
        self._blocked: dict[tuple[str, str], int] = {}
        self._ends: dict[str, list[End]] = {}
        self._posts: list[tuple[Host, Host, Callable[[], None]]] = []

    # --- the ways -----------------------------------------------------------------------------

    def latency(self, source: Host, target: Host) -> float:
        spread = self.scheduler.random.random() * 2.5 + 0.5
        extra = source.extra_latency_seconds + target.extra_latency_seconds
        return source.latency_seconds * spread + extra

    def is_healing(self) -> bool:
        """Tell whether a way has been free again for a moment only."""
        return self.scheduler.now - self.healed_seconds < HEAL_SECONDS

    def is_blocked(self, source: Host, target: Host) -> bool:
        return bool(self._blocked) and (source.uid, target.uid) in self._blocked

    def block(self, ways: list[tuple[str, str]]) -> None:
        """Block some ways, each from one address to another."""
        for way in ways:
            self._blocked[way] = self._blocked.get(way, 0) + 1

    def unblock(self, ways: list[tuple[str, str]]) -> None:
        """End a blockade; what has waited arrives."""
        self.healed_seconds = self.scheduler.now
        for way in ways:
            self._blocked[way] -= 1
            if not self._blocked[way]:
                del self._blocked[way]
        for end in [e for e in self.held if not self.is_blocked(e.host, e.other.host)]:
            del self.held[end]
            end.release()
        posts, self._posts = self._posts, []
        for post in posts:
            self._deliver(*post)

    # --- connections --------------------------------------------------------------------------

    def connect(
        self, source: Host, address: str, opened: Callable[[End], None], failed: Callable[[], None]
    ) -> None:
        """Connect to an address; exactly one of the two callables is called."""
        settled = False
        target = self.hosts.get(address)

        def fail() -> None:
            nonlocal settled
            if not settled:
                settled = True
                failed()

        def greet() -> None:
            nonlocal settled
            if settled or target is None or self.is_blocked(target, source):
                return
            settled = True
            near, far = End(self, source), End(self, target)
            near.other, far.other = far, near
            for end in (near, far):
                self._ends.setdefault(end.host.uid, []).append(end)
            target.accept(far)
            source.run(lambda: opened(near))

        def arrive() -> None:
            if target is None or not target.alive:
                source.run(fail)
            elif not self.is_blocked(source, target):
                target.run(greet)

        self.scheduler.later(self.latency(source, source), arrive)
        source.later(CONNECT_SECONDS, fail)

    def post(self, source: Host, address: str, act: Callable[[], None]) -> None:
        """Send something that may be lost: it does not come at all where the way is blocked.

        Or it comes when the way is free again, if the connection has stood so long.
        """
        target = self.hosts.get(address)
        if target is not None and target.alive:
            delay = self.latency(source, target)
            self.scheduler.later(delay, lambda: self._deliver(source, target, act))

    def _deliver(self, source: Host, target: Host, act: Callable[[], None]) -> None:
        if not self.is_blocked(source, target):
            target.run(act)
        elif self.scheduler.random.random() < 0.5:
            self._posts.append((source, target, act))

    def forget(self, end: End) -> None:
        ends = self._ends.get(end.host.uid, [])
        if end in ends:
            ends.remove(end)

    def reset(self, uid: str) -> bool:
        """Lose all connections of a host; tell whether it had any."""
        ends = list(self._ends.get(uid, ()))
        for end in ends:
            end.reset()
        return bool(ends)

    def died(self, uid: str) -> None:
        """A host is dead: its kernel ends its connections."""
        for end in list(self._ends.pop(uid, ())):
            end.close()
