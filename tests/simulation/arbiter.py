"""The arbiter's cell, and the ways in which asking it goes wrong.

A call can be slow, fail, or fail for the caller although it takes effect, then or later. It is
the one thing that launchers trust, so the cell itself is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, replace
from typing import Any

from dssync import contract
from dssync.control.record import Record
from dssync.errors import ArbiterError
from simulation.scheduler import Process, Scheduler
from simulation.violation import require

CALL_SECONDS = 3.0
"""A call without an answer fails after this long."""
Answer = Callable[[Record | ArbiterError | None], None]


@dataclass
class Weather:
    """How the arbiter is for one launcher."""

    outages: int = 0
    """Faults that keep it from answering."""
    takes_effect: bool = False
    """Whether calls that are not answered may have an effect."""
    extra_seconds: float = 0.0

    @property
    def answers(self) -> bool:
        return not self.outages


class Cell:
    """The record, swapped by version. Knows every holder that it has had."""

    def __init__(self, scheduler: Scheduler, desired: int, minimum: int) -> None:
        values = {contract.RECORD_DESIRED: str(desired), contract.RECORD_MIN: str(minimum)}
        self.record = Record("1", values=values)
        self.holders: dict[int, str] = {}
        """The winner of each term."""
        self.since: dict[int, float] = {}
        """When each term was won."""
        self.ended_term = 0
        """In which the record began to say that the job is done."""
        self._scheduler = scheduler
        self._weather: dict[str, Weather] = {}
        self.sky = Weather()
        """How the arbiter is for everybody."""

    def weather(self, uid: str) -> Weather:
        """Return how the arbiter is for one launcher alone."""
        return self._weather.setdefault(uid, Weather())

    def swap(self, expected: Record, new: Record) -> Record | None:
        """Swap at once."""
        if expected.version != self.record.version:
            return None
        held, new_holder = (self.record.holder, self.record.term), (new.holder, new.term)
        if new_holder != held:
            require(new.term > self.record.term, f"{new.holder} takes term {new.term} again")
            self.holders[new.term], self.since[new.term] = new.holder, self._scheduler.now
        if new.completed and not self.record.completed:
            self.ended_term = new.term
        self.record = replace(new, version=str(int(self.record.version) + 1))
        return self.record

    def read(self, caller: Process, uid: str, answer: Answer) -> None:
        """Read for a launcher; the answer is the record or an error."""
        self._call(caller, uid, lambda: self.record, answer)

    def try_swap(
        self, caller: Process, uid: str, swap: tuple[Record, Record], answer: Answer
    ) -> None:
        """Swap for a launcher; the answer is what was written, None, or an error."""
        self._call(caller, uid, lambda: self.swap(*swap), answer)

    def _call(
        self, caller: Process, uid: str, act: Callable[[], Record | None], answer: Answer
    ) -> None:
        random, sky, own = self._scheduler.random, self.sky, self.weather(uid)
        extra = sky.extra_seconds + own.extra_seconds
        there, back = (random.uniform(0.001, 0.02) + random.random() * extra for _ in "ab")
        settled = False

        def settle(found: Record | ArbiterError | None) -> None:
            nonlocal settled
            if not settled:
                settled = True
                answer(found)

        def arrive() -> None:
            silent = not (sky.answers and own.answers)
            if silent and not (_acts(sky) and _acts(own) and random.random() < 0.3):
                return
            found = act()
            if not silent:
                self._scheduler.later(back, lambda: caller.run(lambda: settle(found)))

        self._scheduler.later(there, arrive)
        failed = ArbiterError("no answer")
        caller.later(random.uniform(0.3, 1.0) * CALL_SECONDS, lambda: settle(failed))


def _acts(weather: Weather) -> bool:
    return weather.answers or weather.takes_effect


Request = tuple[Record, Record] | None
"""A swap, or a read."""
Work = Coroutine[Any, Any, None]


class Script:
    """Runs a coroutine that waits for nothing but the arbiter: the real recorder."""

    def __init__(self, cell: Cell, caller: Process, uid: str) -> None:
        self._cell = cell
        self._caller = caller
        self._uid = uid

    async def read(self) -> Record:
        """See ``arbiters.Arbiter.read``."""
        found = await _Ask(None)
        assert found is not None
        return found

    async def swap(self, expected: Record, new: Record) -> Record | None:
        """See ``arbiters.Arbiter.swap``."""
        return await _Ask((expected, new))

    def drive(self, work: Work, done: Callable[[], None]) -> None:
        """Run a coroutine to its end."""
        self._step(work, None, done)

    def _step(
        self, work: Work, found: Record | ArbiterError | None, done: Callable[[], None]
    ) -> None:
        try:
            failed = isinstance(found, ArbiterError)
            request: Request = work.throw(found) if failed else work.send(found)
        except StopIteration:
            done()
            return

        def answer(found: Record | ArbiterError | None) -> None:
            self._step(work, found, done)

        if request is None:
            self._cell.read(self._caller, self._uid, answer)
        else:
            self._cell.try_swap(self._caller, self._uid, request, answer)


class _Ask:
    """Waits for one answer of the arbiter."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def __await__(self) -> Generator[Request, Record | None, Record | None]:
        return (yield self._request)
