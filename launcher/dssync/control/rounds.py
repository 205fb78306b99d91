"""The frozen rounds of a job and what their groups still owe.

A round is frozen on a view; its groups follow from the schedule; each group is an `Exchange`
that runs, is retried while it shrinks, and closes by itself. There is no barrier over the
groups: a loss concerns the exchanges that hold the lost member and nobody else. Time comes in
as an argument; messages go out through a callable.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from dssync.control.deadline import DeadlineSettings, RoundDeadline
from dssync.control.directory import Directory
from dssync.control.exchange import Closed, Exchange
from dssync.control.hearsay import Hearsay
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
from dssync.control.watch import Watch
from dssync.schedule import Settings, groups_of

SendToMember = Callable[[str, ToMemberBody], None]
MOMENTS = 3
"""A round takes so many times as long with the optimizer's state: most keep two numbers for each
parameter."""
NO_LAYOUTS: Mapping[str, str] = MappingProxyType({})


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
        self.missed: list[tuple[str, str]] = []
        """Members that missed a deadline since the coordinator last looked, with the kind."""
        self.earned: list[tuple[str, int]] = []
        """Who has applied a sum since the coordinator last looked, and in which round."""
        self.committed: list[tuple[str, tuple[int, ...]]] = []
        """Batches committed since the coordinator last looked, by member."""
        self.flushed: list[tuple[int, str]] = []
        """Flushes decided since the coordinator last looked, with who speaks for the job."""
        self.hearsay = Hearsay()
        self._deadline = RoundDeadline(deadline)
        self._directory = Directory(term)
        self._send = send
        self._open: dict[int, dict[Exchange, None]] = {}
        """By round, in the order of its groups."""
        self._of_member: dict[int, dict[str, Exchange]] = {}
        """The open exchange of each member, by round."""
        self._views: dict[int, View] = {}
        self._watch = Watch()
        self._ripe: list[Exchange] = []
        """Strict: exchanges that everybody has confirmed and nobody has decided."""

    def freeze(
        self,
        view: View,
        kind: str,
        strict: bool,
        progress: float = 0.0,
        layouts: Mapping[str, str] = NO_LAYOUTS,
    ) -> None:
        """Freeze the next round on ``view`` and tell every member its part.

        Args:
            view: who takes part.
            kind: ``train``, ``flush``, ``suspend`` or ``final``; see ``Assign``.
            strict: whether one decision for each group commits it.
            progress: committed fraction of the run.
            layouts: of the optimizer's state, by member; it is averaged with the values in groups
                whose members have the same.
        """
        number, self.next_round = self.next_round, self.next_round + 1
        self._views[number] = view
        groups = (
            groups_of(view.layout, self.settings, number) if kind == "train" else (view.members,)
        )
        self._open[number] = dict.fromkeys(
            Exchange(
                number, kind, strict, group, view.unweighted, progress, _common(layouts, group)
            )
            for group in groups
        )
        self._of_member[number] = {m: each for each in self._open[number] for m in each.members}
        # A layout that was replaced leaves communicators behind; those in use come round again
        # within one period of the schedule.
        lowest = min(self._open)
        self._directory.expire(min(number - 2 * view.period(self.settings) - 2, lowest))
        for exchange in self._open[number]:
            self._assign(exchange)

    def holding(self, key: str) -> tuple[int, ...]:
        """Return the rounds in which ``key`` has still to apply, lowest first."""
        return tuple(e.round for e in self.exchanges() if key in e.waiting)

    def mates(self, communicator: str) -> tuple[str, ...]:
        """Return the members of a communicator in use."""
        return self._directory.members(communicator)

    @property
    def has_results(self) -> bool:
        """Whether there is anything for the coordinator to look at."""
        return bool(self.committed or self.closed or self.missed or self.earned or self.flushed)

    @property
    def lead(self) -> int:
        """Number of frozen rounds from the lowest open one on."""
        return self.next_round - min(self._open, default=self.next_round)

    def arrive(self, key: str, message: Arrive, now: float) -> None:
        """Note that a member is ready for its round.

        The deadline starts with the first mate that has trained for this round, else with the
        last one: who found no data does not hurry a mate that trains. It also starts with the
        first result, which shows that all had arrived. While it builds, a member is not late, and
        it starts no more than the generous deadline of a build.
        """
        exchange = self._find(key, message.round)
        if exchange is None or exchange.attempt != message.attempt or exchange.collecting:
            return
        exchange.arrived.add(key)
        if message.idle and exchange.late:
            self._watch.add(exchange)
            return
        if message.building:
            self._expire_at(exchange, now + self._deadline.settings.build_seconds)
        else:
            if exchange.first_arrival_seconds is None:
                exchange.first_arrival_seconds = now
            self._expire_at(exchange, now + self._limit_seconds(exchange))

    def confirm(self, key: str, message: Confirm, now: float) -> None:
        """Strict: the commit can be decided when the last member holds its results."""
        exchange = self._find(key, message.round)
        if exchange is None or exchange.attempt != message.attempt or exchange.collecting:
            return
        exchange.confirmed[key] = message.batches
        # A member whose operations are over soon does not announce them.
        exchange.arrived.add(key)
        self._expire_at(exchange, now + self._limit_seconds(exchange))
        if exchange.undecided:
            self._ripe.append(exchange)

    def decide(self, now: float, may_end: Callable[[], bool]) -> None:
        """Strict: commit what everybody has confirmed; to be called when that may be decided.

        Args:
            now: the time.
            may_end: tells whether the final flush may be committed.
        """
        ripe, self._ripe = self._ripe, []
        for exchange in ripe:
            if exchange.undecided:
                if exchange.kind != "final" or may_end():
                    self._decide(exchange, now)
                else:
                    self._ripe.append(exchange)

    def _decide(self, exchange: Exchange, now: float) -> None:
        """Commit an attempt: what its members consumed is done, whoever of them is lost now."""
        exchange.decided = True
        self._note_flush(exchange)
        exchange.deadline_seconds = now + self._limit_seconds(exchange)
        self._watch.add(exchange)
        done = [(member, exchange.confirmed[member]) for member in exchange.members]
        self.committed += done
        batches = tuple(batch for _, each in done for batch in each)
        earlier = self.hearsay.commit(exchange.members, batches)
        for member in exchange.members:
            self._send(member, Commit(exchange.round, exchange.attempt, batches, earlier))

    def _note_flush(self, exchange: Exchange) -> None:
        if exchange.kind != "train":
            self.flushed.append((exchange.round, exchange.members[0]))

    def applied(self, key: str, message: Applied, now: float) -> None:
        """Note that a member has applied, also if the round had gone on without it."""
        self.committed.append((key, message.batches))
        exchange = self._find(key, message.round)
        if exchange is not None:
            if exchange.strict and message.batches:
                self.hearsay.commit((key,), message.batches)
            if not exchange.decided:
                self._note_flush(exchange)
            exchange.applied.add(key)
            if exchange.communicators:
                self.earned.append((key, exchange.round))
            if not exchange.closed and exchange.attempt == message.attempt:
                self._expire_at(exchange, now + self._limit_seconds(exchange))
            self._settle(exchange, now)

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

    def changed(self, key: str, layout: str) -> None:
        """Leave the optimizer's state out of later attempts if a member has another layout now.

        The attempt that runs fails at that member, if it needs the former layout.
        """
        for exchange in self.exchanges():
            if key in exchange.waiting and exchange.moments != layout:
                exchange.moments = ""

    def gone(self, key: str, cause: str, now: float) -> None:
        """Take a lost member out of every open exchange."""
        hit = [(e, key in e.waiting) for e in self.exchanges() if key in e.members]
        for exchange, _ in hit:
            exchange.drop((key,))
        for exchange, pending in hit:
            if pending:
                self._collect(exchange, cause, now)
                exchange.explain(cause)
        for exchange, _ in hit:
            self._settle(exchange, now)
        in_use: set[str] = set().union(*(e.communicators for e in self.exchanges()))
        self._directory.forget(key, in_use)

    def tick(self, now: float) -> None:
        """Skip whoever holds a group up past its deadline."""
        is_due = self._watch.is_due(now)
        if not is_due and not self._watch.spans_rounds:
            return
        held: set[str] = set()
        # A deadline that is over sets others, of exchanges that share a communicator.
        for exchange in self.exchanges() if is_due else self._watch.exchanges():
            if exchange.deadline_seconds is not None:
                if not exchange.collecting and held.intersection(exchange.late):
                    # A mate of a lower round holds them up: their time starts when they are free.
                    exchange.deadline_seconds = now + self._limit_seconds(exchange)
                    self._watch.add(exchange)
                elif now >= exchange.deadline_seconds and not exchange.undecided:
                    self._expire(exchange, now)
                    self._settle(exchange, now)
            held.update(exchange.held)
        if is_due:
            self._watch.refresh()

    def _expire_at(self, exchange: Exchange, seconds: float) -> None:
        exchange.expire_at(seconds)
        self._watch.add(exchange)

    def _expire(self, exchange: Exchange, now: float) -> None:
        late, exchange.deadline_seconds = exchange.late, None
        # First, so that nobody who is skipped goes on with a communicator that is broken.
        self._collect(exchange, "deadline", now)
        self._miss(exchange, late)

    def _miss(self, exchange: Exchange, late: tuple[str, ...]) -> None:
        """Report who is late. A training round goes on without them; a flush benches them."""
        self.missed += [(member, exchange.kind) for member in late]
        if exchange.kind == "train":
            exchange.drop(late)
            for member in late:
                self._send(member, Skip(exchange.round, exchange.round + 1))

    def _collect(self, exchange: Exchange, cause: str, now: float) -> None:
        """Give the current attempt up, and every other that uses one of its communicators."""
        if exchange.running:
            hit = self._entangled(exchange)
            # Lower rounds first, so that no member goes on in one with a communicator that it
            # has given up in a higher one.
            for each in hit:
                self._abandon(each, cause, now)
            for communicator in sorted(set().union(*(each.communicators for each in hit))):
                self._directory.break_(communicator)

    def _entangled(self, exchange: Exchange) -> list[Exchange]:
        """Return the running exchanges that share communicators, directly or through others."""
        broken = exchange.communicators
        hit = [exchange]
        while True:
            running = [e for e in self.exchanges() if e.running]
            wider = [e for e in running if e is exchange or e.communicators & broken]
            if len(wider) == len(hit):
                return wider
            hit = wider
            broken = set().union(*(each.communicators for each in hit))

    def _abandon(self, exchange: Exchange, cause: str, now: float) -> None:
        exchange.collect(cause, now, now + self._deadline.settings.reply_seconds)
        self._watch.add(exchange)
        for member in exchange.waiting:
            self._send(member, Abandon(exchange.round, exchange.attempt))

    def _settle(self, exchange: Exchange, now: float) -> None:
        """Close the exchange or start its next attempt if it is time."""
        if exchange.closed:
            self._close(exchange, now)
        elif exchange.collected:
            exchange.retry()
            self._assign(exchange)

    def _limit_seconds(self, exchange: Exchange) -> float:
        """Return how long an attempt may take; measured on rounds of one sum."""
        return self._deadline.limit_seconds(exchange.round) * exchange.sums

    def _close(self, exchange: Exchange, now: float) -> None:
        number = exchange.round
        self._watch.remove(exchange)
        del self._open[number][exchange]
        for member in exchange.members:
            del self._of_member[number][member]
        if not self._open[number]:
            del self._open[number], self._views[number], self._of_member[number]
        if exchange.attempt == 0 and exchange.first_arrival_seconds is not None:
            seconds = now - exchange.first_arrival_seconds
            self._deadline.observe(seconds / exchange.sums)
        self.closed.append(exchange.result(now))

    def _assign(self, exchange: Exchange) -> None:
        view = self._views[exchange.round]
        stages = self._stages(exchange)
        exchange.sums = max(1, *map(len, stages.values())) * (MOMENTS if exchange.moments else 1)
        assign: Assign | None = None
        for member in exchange.members:
            retire, weighted = self._directory.retired(member), member not in exchange.unweighted
            own = (stages[member], retire, weighted)
            # Mates are mostly told the very same, which is then written down once.
            if assign is None or (assign.stages, assign.retire, assign.weighted) != own:
                assign = Assign(
                    round=exchange.round,
                    attempt=exchange.attempt,
                    kind=exchange.kind,
                    strict=exchange.strict,
                    stages=stages[member],
                    retire=retire,
                    world_size=len(view.members),
                    view=view.sequence,
                    first=exchange.first_of(view.members),
                    cause=exchange.cause,
                    weighted=weighted,
                    progress=exchange.progress,
                    period=view.period(self.settings),
                    moments=exchange.moments,
                )
            self._send(member, assign)

    def _stages(self, exchange: Exchange) -> dict[str, tuple[Stage, ...]]:
        # Flushes have communicators of their own: one that is given up takes no group of a
        # training round with it.
        purpose = "train" if exchange.kind == "train" else "flush"

        def communicator_id(members: tuple[str, ...]) -> str:
            communicator = self._directory.use(purpose, members, exchange.round)
            exchange.communicators.add(communicator)
            return communicator

        exchange.communicators.clear()
        if exchange.kind == "train":
            return train_stages(exchange.members, exchange.unweighted, communicator_id)
        every_place = self._views[exchange.round].places
        places = {m: every_place[m] for m in exchange.members}
        return flush_stages(places, exchange.unweighted, self.settings, communicator_id)

    def exchanges(self) -> list[Exchange]:
        """Return the open exchanges, lowest round first."""
        return [each for number in sorted(self._open) for each in self._open[number]]

    def _find(self, key: str, round_number: int) -> Exchange | None:
        exchange = self._of_member.get(round_number, {}).get(key)
        return exchange if exchange is not None and key in exchange.members else None


def _common(layouts: Mapping[str, str], group: tuple[str, ...]) -> str:
    """Return the layout that all members of a group have; empty if they have none or several."""
    found = {layouts.get(member, "") for member in group}
    return found.pop() if len(found) == 1 else ""
