"""Collective operations as they fail in reality.

An operation completes at each member at another time, and only if every member of the
communicator started the same one. If a member dies or gives up in the middle, some of the others
still complete, some get an error and some hang: nobody may draw conclusions from any of these.

That all members start the same one is for the coordinator to see to. While nobody leads, members
may have heard of different views and attempts, and what tells is the marks in the sum
(`worker.buckets`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from simulation.scheduler import Process, Scheduler
from simulation.violation import ViolationError, require

Numbers = list[float]
Token = tuple[int, int]
"""Round and attempt."""


@dataclass
class Party:
    """One member's part in an operation."""

    process: Process
    scaled: Numbers
    weight: float
    support: int
    """The batches in what it gives."""
    done: Callable[[Numbers, int], None]
    failed: Callable[[], None]
    leaderless: bool = False
    """No coordinator sees to it that its mates know the same."""
    over: bool = False


@dataclass
class _Operation:
    token: Token
    members: tuple[str, ...]
    parties: dict[str, Party] = field(default_factory=dict)
    broken: bool = False
    mixed: bool = False
    """Its members are in different rounds."""

    @property
    def leaderless(self) -> bool:
        """Whether no coordinator sees to it that all members know the same."""
        return any(each.leaderless for each in self.parties.values())

    @property
    def stalled(self) -> bool:
        """Whether a member stands still that has not finished."""
        return any(each.process.frozen and not each.over for each in self.parties.values())


class Fabric:
    """All communicators of a run."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._operations: dict[str, dict[int, _Operation]] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._left: dict[str, set[str]] = {}
        self._dead: set[str] = set()

    def start(
        self, communicator: str, members: tuple[str, ...], token: Token, key: str, party: Party
    ) -> None:
        """Start the next operation of ``key`` on a communicator.

        Like a real process group, operations are paired by their order alone.
        """
        number = self._counts.get((communicator, key), 0)
        self._counts[communicator, key] = number + 1
        numbered = self._operations.setdefault(communicator, {})
        operation = numbered.get(number)
        if operation is None:
            operation = numbered[number] = _Operation(token, members)
        operation.parties[key] = party
        if (operation.token, operation.members) != (token, members):
            if operation.members != members or not operation.leaderless:
                raise ViolationError(
                    f"{key} starts {token} of {members} on communicator {communicator}, where its "
                    f"mates are in {operation.token} of {operation.members}"
                )
            operation.mixed = True
        left = self._left.get(communicator, ())
        if not self._dead.isdisjoint(members) or not set(left).isdisjoint(members):
            self._break(operation)
        elif len(operation.parties) == len(members):
            self._complete(operation)

    def leave(self, communicator: str, key: str) -> None:
        """A member gives a communicator up."""
        self._left.setdefault(communicator, set()).add(key)
        for operation in self._operations.get(communicator, {}).values():
            if key in operation.members:
                self._end(operation, key)

    def died(self, key: str) -> None:
        self._dead.add(key)
        for numbered in self._operations.values():
            for operation in numbered.values():
                if key in operation.members:
                    self._end(operation, key)

    def _end(self, operation: _Operation, key: str) -> None:
        if key in operation.parties:
            operation.parties[key].over = True
        if not all(party.over for party in operation.parties.values()):
            self._break(operation)
        operation.broken = True

    def _complete(self, operation: _Operation) -> None:
        columns = zip(*(operation.parties[m].scaled for m in operation.members), strict=True)
        off = abs(sum(party.weight for party in operation.parties.values()) - 1)
        if operation.leaderless and (operation.mixed or off >= 1e-9):
            self._refuse(operation)
            return
        require(off < 1e-9, f"weights of {operation.members} sum to 1 but for {off}")
        total, support = [sum(column) for column in columns], 0
        for party in operation.parties.values():
            support |= party.support
        for party in operation.parties.values():
            self._finish(operation, party, (total, support))

    def _refuse(self, operation: _Operation) -> None:
        """All members see in the sum that it is none of their round and view."""
        for party in operation.parties.values():
            party.over = True
            party.process.later(self._scheduler.random.uniform(0.002, 0.02), party.failed)

    def _finish(self, operation: _Operation, party: Party, result: tuple[Numbers, int]) -> None:
        waits_for_frozen = self._scheduler.random.random() < 0.5

        def finish() -> None:
            if party.over:
                return
            if waits_for_frozen and operation.stalled:
                party.process.later(0.05, finish)
                return
            party.over = True
            party.done(list(result[0]), result[1])

        slowest = self._scheduler.random.choice((0.01, 0.01, 0.02, 0.08))
        party.process.later(self._scheduler.random.uniform(0.002, slowest), finish)

    def _break(self, operation: _Operation) -> None:
        """Some complete if all had started, some fail, some hang."""
        operation.broken = True
        full = len(operation.parties) == len(operation.members)
        for party in operation.parties.values():
            fate = self._scheduler.random.choice(("complete", "fail", "hang"))
            if party.over or (fate == "complete" and full):
                continue
            party.over = True
            if fate == "fail":
                party.process.later(self._scheduler.random.uniform(0.001, 0.05), party.failed)
