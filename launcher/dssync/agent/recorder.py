"""Keeps the coordinator and the arbiter's record in step.

What the operator writes there goes to the coordinator; where the coordinator has got to is copied
there for people to see. Nothing waits for either: membership is decided in memory, and an arbiter
that cannot be reached delays only what is shown.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from dssync import contract
from dssync.agent.arbiters import Arbiter, Record
from dssync.control.coordinator import Coordinator
from dssync.control.record import launchers_value, missing_value
from dssync.control.view import slot_of
from dssync.errors import ArbiterError

WRITE_SECONDS: Final = 1.0
"""Time between two writes; each makes the operator look at the job."""
PROGRESS_SECONDS: Final = 10.0
"""Time between two writes that change nothing but the progress."""
FINISH_SECONDS: Final = 60.0
"""How long the last word is tried: who hears of the end leaves, and whoever takes over from a
record that does not tell of it trains once more."""
_RETRY_SECONDS: Final = 0.1


def entries(coordinator: Coordinator) -> dict[str, str]:
    """What the record shall say of a coordinator's job, as ``dssync.contract`` spells it.

    At the end members leave one by one: the view that finished the job is the last one shown. A
    short job may be over before any other was written.
    """
    world, ledger = coordinator.world, coordinator.ledger
    told: dict[str, object] = {}
    if ledger.total:
        told[contract.RECORD_PROGRESS] = {
            contract.PROGRESS_STEP: ledger.committed,
            contract.PROGRESS_TOTAL: ledger.total,
        }
    elif world is not None:
        told[contract.RECORD_PROGRESS] = {contract.PROGRESS_STEP: world.latest_arrival + 1}
    if coordinator.completed:
        told[contract.RECORD_COMPLETED] = True
    view = coordinator.shown_view
    if view is not None:
        pods = len({slot_of(key) for key in view.members})
        numbers = (view.term, view.sequence, pods, len(view.members))
        told[contract.RECORD_VIEW] = dict(zip(contract.VIEW_KEYS, numbers, strict=True))
    listed: dict[str, str] = {}
    if coordinator.launchers:
        listed[contract.RECORD_LAUNCHERS] = launchers_value(coordinator.launchers)
        listed[contract.RECORD_MISSING] = missing_value(coordinator.missing)
    return listed | {key: json.dumps(value) for key, value in told.items()}


@dataclass(frozen=True)
class Sizes:
    """How many pods the record asks for."""

    desired: int
    minimum: int

    def updated(self, record: Record) -> "Sizes":
        """Return what the record says; these numbers where it says nothing that is one.

        Anybody in a job may write its record, and whoever leads reads this first.
        """
        return Sizes(
            _number(record, contract.RECORD_DESIRED, self.desired),
            _number(record, contract.RECORD_MIN, self.minimum),
        )


def _number(record: Record, key: str, otherwise: int) -> int:
    found = contract.value_of(record.values.get(key, ""))
    return found if type(found) is int and found >= 0 else otherwise


class Recorder:
    """Writes the record on behalf of one coordinatorship, and tells what others wrote there.

    The election reads the record anyway; what it reads comes here.

    Args:
        arbiter: where the record is.
        mine: the record by which this launcher became coordinator.
        current: returns what the record shall say now.
        resized: called when the record asks for another number of pods.
    """

    def __init__(
        self,
        arbiter: Arbiter,
        mine: Record,
        current: Callable[[], Mapping[str, str]],
        resized: Callable[[Sizes], None],
    ) -> None:
        self._arbiter = arbiter
        self._mine = mine
        self._current = current
        self._resized = resized
        self._sizes = Sizes(0, 0).updated(mine)
        self._may_write = self._may_progress = 0.0
        self._writing: asyncio.Task[None] | None = None

    def heard(self, record: Record) -> None:
        """Take in the record of this coordinatorship as it was read just now."""
        if self._writing is None or self._writing.done():
            now = asyncio.get_running_loop().time()
            self._writing = asyncio.create_task(self.update(record, now))

    async def update(self, record: Record, now: float) -> None:
        """Tell what others wrote, and write what is new; what fails is left to the next time."""
        self._read(record)
        with contextlib.suppress(ArbiterError):
            await self._write(record, now)

    async def close(self) -> None:
        """Write nothing more."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    async def finish(self) -> bool:
        """Write that the job is done; tell whether this coordinatorship lasted until then.

        Raises:
            ArbiterError: The arbiter could not be reached for ``FINISH_SECONDS``.
        """
        clock = asyncio.get_running_loop().time
        give_up = clock() + FINISH_SECONDS
        while True:
            self._may_write = self._may_progress = 0.0
            try:
                if self._superseded(record := await self._arbiter.read()):
                    return False
                if await self._write(record, clock()):
                    return True
            except ArbiterError:
                if clock() > give_up:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

    def _superseded(self, record: Record) -> bool:
        return (record.holder, record.term) != (self._mine.holder, self._mine.term)

    def _read(self, record: Record) -> None:
        sizes = self._sizes.updated(record)
        if sizes != self._sizes:
            self._sizes = sizes
            self._resized(sizes)

    async def _write(self, record: Record, now: float) -> bool:
        """Write what is new, not too often; tell whether nothing is left to write.

        Who takes over after the end, to hear of it, knows no more than the record says.
        """
        if record.completed:
            return True
        current = self._current()
        new = {key for key, text in current.items() if record.values.get(key) != text}
        if not new:
            return True
        due = self._may_progress if new == {contract.RECORD_PROGRESS} else self._may_write
        if now < due:
            return False
        values = {**record.values, **current}
        if await self._arbiter.swap(record, replace(record, values=values)) is None:
            return False
        self._may_write, self._may_progress = now + WRITE_SECONDS, now + PROGRESS_SECONDS
        return True
