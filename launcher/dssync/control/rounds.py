"""The frozen rounds of a job and what their groups still owe.

A round is frozen on a view; its groups follow from the schedule; each group is an `Exchange`
that runs, is retried while it shrinks, and closes by itself. There is no barrier over the
groups: a loss concerns the exchanges that hold the lost member and nobody else. Time comes in
as an argument; messages go out through a callable.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dssync.control.deadline import DeadlineSettings, RoundDeadline
from dssync.control.directory import Directory
from dssync.control.exchange import Exchange
from dssync.control.messages import (
    Abandon,
    Abandoned,
    Applied,
    Arrive,
    Assign,
    Commit,
    Confirm,
    Failed,
    Skip,
    Stage,
    ToMemberBody,
)
from dssync.control.stages import flush_stages, train_stages
from dssync.control.view import View
from dssync.schedule import Settings, groups_of

SendToMember = Callable[[str, ToMemberBody], None]


@dataclass(frozen=True)
class Closed:
    """An exchange came to its end."""

    round: int
    kind: str
    members: tuple[str, ...]
    """Those who applied in the last attempt."""
    earned_weight: tuple[str, ...]
    """Members whose values count from now on."""
    attempts: int
    cause: str
    reform_seconds: float | None
    """From the first evidence of a loss to the last survivor's commit."""


class Rounds:
    """The open exchanges, by round."""

    def __init__(
        self, term: int, settings: Settings, deadline: DeadlineSettings, send: SendToMember
    ) -> None:
        self.settings = settings
        self.next_round = 0
        """The lowest round that is not frozen."""
        self.closed: list[Closed] = []
        """Exchanges closed since the coordinator last looked."""
        self.missed: list[str] = []
        """Members skipped since the coordinator last looked."""
        self._deadline = RoundDeadline(deadline)
        self._directory = Directory(term)
        self._send = send
        self._open: dict[int, list[Exchange]] = {}
        self._views: dict[int, View] = {}

    def freeze(self, view: View, kind: str, strict: bool) -> None:
        """Freeze the next round on ``view`` and tell every member its part."""
        number, self.next_round = self.next_round, self.next_round + 1
        self._views[number] = view
        groups = (
            groups_of(view.layout, self.settings, number) if kind == "train" else (view.members,)
        )
        self._open[number] = [
            Exchange(number, kind, strict, group, view.unweighted) for group in groups
        ]
        # A layout that was replaced leaves communicators behind; those in use come round again
        # within one period of the schedule.
        self._directory.expire(number - 2 * view.period(self.settings) - 2)
        for exchange in self._open[number]:
            self._assign(exchange)

    def holding(self, key: str) -> tuple[int, ...]:
        """Return the rounds in which ``key`` has still to apply, lowest first."""
        return tuple(e.round for e in self._exchanges() if key in e.waiting)

    def mates(self, communicator: str) -> tuple[str, ...]:
        """Return the members of a communicator in use."""
        return self._directory.members(communicator)

    @property
    def idle(self) -> bool:
        """Whether no frozen round is open."""
        return not self._open

    def arrive(self, key: str, message: Arrive, now: float) -> None:
        """Note that a member starts its operation; the first mate starts the deadline."""
        exchange = self._find(key, message.round)
        if exchange is None or exchange.attempt != message.attempt or exchange.collecting:
            return
        exchange.arrived.add(key)
        if exchange.deadline_seconds is None and not message.idle:
            exchange.first_arrival_seconds = now
            exchange.deadline_seconds = now + self._deadline.limit_seconds(exchange.round)

    def confirm(self, key: str, message: Confirm) -> None:
        """Strict: decide the commit when the last member holds its results."""
        exchange = self._find(key, message.round)
        if exchange is None or exchange.attempt != message.attempt or exchange.collecting:
            return
        exchange.confirmed.add(key)
        if exchange.all_confirmed and not exchange.decided:
            exchange.decided = True
            for member in exchange.members:
                self._send(member, Commit(exchange.round, exchange.attempt))

    def applied(self, key: str, message: Applied, now: float) -> bool:
        """Note that a member has applied; return False if the round had gone on without it."""
        exchange = self._find(key, message.round)
        if exchange is None:
            return False
        exchange.applied.add(key)
        self._settle(exchange, now)
        return True

    def abandoned(self, key: str, message: Abandoned, now: float) -> None:
        """Note an answer to ``Abandon``; the last one starts the next attempt."""
        exchange = self._find(key, message.round)
        if exchange is not None and exchange.attempt == message.attempt and exchange.collecting:
            exchange.abandoned.add(key)
            self._settle(exchange, now)

    def failed(self, key: str, message: Failed, now: float) -> None:
        """Probe a group in which an operation failed."""
        exchange = self._find(key, message.round)
        if exchange is not None and exchange.attempt == message.attempt:
            self._collect(exchange, "failed", now)

    def gone(self, key: str, cause: str, now: float) -> None:
        """Take a lost member out of every open exchange."""
        self._directory.forget(key)
        for exchange in self._exchanges():
            if key not in exchange.members:
                continue
            pending = key in exchange.waiting
            exchange.drop((key,))
            if pending:
                self._collect(exchange, cause, now)
            self._settle(exchange, now)

    def tick(self, now: float) -> None:
        """Skip whoever holds a group up past its deadline."""
        for exchange in self._exchanges():
            if exchange.deadline_seconds is None or now < exchange.deadline_seconds:
                continue
            present = exchange.abandoned if exchange.collecting else exchange.arrived
            late = tuple(m for m in exchange.waiting if m not in present)
            exchange.deadline_seconds = None
            self._skip(exchange, late)
            self._collect(exchange, "deadline", now)
            self._settle(exchange, now)

    def _skip(self, exchange: Exchange, late: Iterable[str]) -> None:
        for member in late:
            self._send(member, Skip(exchange.round, exchange.round + 1))
            self.missed.append(member)
        exchange.drop(late)

    def _collect(self, exchange: Exchange, cause: str, now: float) -> None:
        if exchange.collecting or exchange.decided or exchange.closed:
            return
        exchange.collect(cause, now, now + self._deadline.settings.reply_seconds)
        for communicator in exchange.communicators:
            self._directory.break_(communicator)
        for member in exchange.waiting:
            self._send(member, Abandon(exchange.round, exchange.attempt))

    def _settle(self, exchange: Exchange, now: float) -> None:
        """Close the exchange or start its next attempt if it is time."""
        if exchange.closed:
            self._close(exchange, now)
        elif exchange.collected:
            exchange.retry()
            self._assign(exchange)

    def _close(self, exchange: Exchange, now: float) -> None:
        self._open[exchange.round].remove(exchange)
        view = self._views[exchange.round]
        if not self._open[exchange.round]:
            del self._open[exchange.round], self._views[exchange.round]
        if exchange.attempt == 0 and exchange.first_arrival_seconds is not None:
            self._deadline.observe(now - exchange.first_arrival_seconds)
        evidence = exchange.evidence_seconds
        self.closed.append(
            Closed(
                round=exchange.round,
                kind=exchange.kind,
                members=exchange.members,
                earned_weight=_earned(exchange, view),
                attempts=exchange.attempt,
                cause=exchange.cause,
                reform_seconds=None if evidence is None else now - evidence,
            )
        )

    def _assign(self, exchange: Exchange) -> None:
        view = self._views[exchange.round]
        stages = self._stages(exchange)
        exchange.communicators = {s.members for each in stages.values() for s in each}
        for member in exchange.members:
            self._send(
                member,
                Assign(
                    round=exchange.round,
                    attempt=exchange.attempt,
                    kind=exchange.kind,
                    strict=exchange.strict,
                    stages=stages[member],
                    retire=self._directory.retired(member),
                    world_size=len(view.members),
                    view=view.sequence,
                    first=view.members[0],
                    cause=exchange.cause,
                ),
            )

    def _stages(self, exchange: Exchange) -> dict[str, tuple[Stage, ...]]:
        def communicator_id(members: tuple[str, ...]) -> str:
            return self._directory.use(members, exchange.round)

        if exchange.kind == "train":
            return train_stages(exchange.members, exchange.unweighted, communicator_id)
        every_place = self._views[exchange.round].places
        places = {m: every_place[m] for m in exchange.members}
        return flush_stages(places, exchange.unweighted, self.settings, communicator_id)

    def _exchanges(self) -> list[Exchange]:
        return [each for number in sorted(self._open) for each in self._open[number]]

    def _find(self, key: str, round_number: int) -> Exchange | None:
        for exchange in self._open.get(round_number, ()):
            if key in exchange.members:
                return exchange
        return None


def _earned(exchange: Exchange, view: View) -> tuple[str, ...]:
    """Return the joiners that now share the values of a weighted mate."""
    mates = exchange.members
    if exchange.kind == "train" and all(m in view.unweighted for m in mates):
        return ()
    return tuple(m for m in mates if m in view.unweighted)
