"""The election's shell: a clock, the arbiter, and questions to other launchers.

The arbiter is asked for one thing at a time. What it does not answer may still have happened, so
an error is never taken for a refusal; the election reads again.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine

from dssync.agent.arbiters import Arbiter, Record
from dssync.agent.evidence import has_ended
from dssync.agent.peers import Peers
from dssync.agent.watch import watch
from dssync.control import ballots as b
from dssync.control.election import Election
from dssync.control.takeover import Launcher
from dssync.errors import ArbiterError

TICK_SECONDS = 0.05


class Campaign:
    """Runs one launcher's election on this event loop.

    Args:
        election: makes the decisions.
        arbiter: the cell.
        peers: the other launchers.
        perform: does what concerns this launcher's own role: follow, lead, hold, step down, hand
            over.
        on_failed: called with the reason when that fails: a launcher that won an election and
            could not do what follows coordinates in name only.
    """

    def __init__(
        self,
        election: Election,
        arbiter: Arbiter,
        peers: Peers,
        perform: Callable[[b.Effect], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self.election = election
        self._arbiter = arbiter
        self._peers = peers
        self._perform = perform
        self._on_failed = on_failed
        self._events: deque[b.Event] = deque()
        self._handling = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._tick())

    def handle(self, event: b.Event) -> None:
        """Hand an event to the election and do what it wants; in turn, also from inside."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                for effect in self.election.handle(self._events.popleft(), time.monotonic()):
                    self._do(effect)
        finally:
            self._handling = False

    async def close(self) -> None:
        """End the election here."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._peers.hang_up()

    def _do(self, effect: b.Effect) -> None:
        match effect:
            case b.Look():
                self._spawn(self._look())
            case b.Swap(expected, new):
                self._spawn(self._swap(expected, new))
            case b.AskAll(launchers):
                self._examine(launchers)
                self._peers.ask(launchers)
            case _:
                self._perform(effect)

    def _examine(self, launchers: tuple[Launcher, ...]) -> None:
        ended = frozenset(each.uid for each in launchers if has_ended(each.process))
        if ended:
            self.handle(b.ExitsSeen(ended))

    async def _look(self) -> None:
        try:
            self.handle(b.Looked(await self._arbiter.read()))
        except ArbiterError:
            self.handle(b.ArbiterFailed())

    async def _swap(self, expected: Record, new: Record) -> None:
        try:
            self.handle(b.Swapped(await self._arbiter.swap(expected, new)))
        except ArbiterError:
            self.handle(b.ArbiterFailed())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.handle(b.Ticked())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        watch(task, self._on_failed)
