"""Watches what goes in and out of the coordinator and what members apply; raises on violations.

Only messages count as evidence, so that the invariants hold for any coordinator that speaks the
protocol. What the monitor believes of the members (its shadow) follows from messages and notes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import Effect, Event, Note, Received, Send
from simulation.coverage import Coverage
from simulation.fabric import Values, ViolationError
from simulation.worker import decode

Attempt = tuple[int, int]
"""Round and attempt."""


class Monitor:
    """The invariants of the protocol."""

    def __init__(self, coordinator: Coordinator, coverage: Coverage) -> None:
        self.coordinator = coordinator
        self.touched: set[str] = set()
        """Members that a fault has hit, now or earlier."""
        self.last = ""
        """The event before, for the trace."""
        self.events = 0
        """Events but heartbeats and ticks."""
        self.applied_count = 0
        self.commits: Counter[int] = Counter()
        self.progressed = False
        self.finalists: set[str] = set()
        """Members that applied the final flush."""
        self._coverage = coverage
        self._view_of_round: dict[int, tuple[int, int, str]] = {}
        self._view: set[str] = set()
        self._eligible: set[str] = set()
        self._assigned: dict[tuple[str, int], dict[int, m.Assign]] = defaultdict(dict)
        self._outstanding: dict[str, dict[int, m.Assign]] = defaultdict(dict)
        self._members_of: dict[str, tuple[str, ...]] = {}
        self._broken: set[str] = set()
        self._weights: dict[tuple[Attempt, str], dict[str, float]] = defaultdict(dict)
        self._givers: dict[Attempt, list[str]] = {}
        self._flush_attempt: dict[int, int] = {}
        self._joiners: set[str] = set()
        self._applied: dict[tuple[str, int], int] = {}
        self._last_applied: dict[str, int] = {}
        self._before: dict[tuple[str, int, int], Values] = {}
        self._last_round: dict[str, int] = {}

    # --- around the coordinator ---------------------------------------------------------------

    def before(self, event: Event, now: float) -> None:
        self._coverage.observe(self.coordinator, event, now)
        if not isinstance(event, Received) or not isinstance(event.message, m.FromMember):
            return
        self.events += 1
        self.last = f"{event.message.member} {event.message.body}"
        key, body = event.message.member, _member_message(event.message.body)
        known = key in self.coordinator.roster.peers
        if isinstance(body, m.Applied) and known:
            self._note_applied(key, body)

    def after(self, event: Event, effects: Iterable[Effect]) -> None:
        world_began, broken = bool(self._view), len(self._broken)
        fresh: list[tuple[str, m.Assign]] = []
        gone: set[str] = set()
        for effect in effects:
            if isinstance(effect, Note):
                self._note(effect)
                if effect.kind in ("leave", "evict") and effect.cause != "drain":
                    gone.add(effect.member)
            elif isinstance(effect, Send) and isinstance(effect.message, m.ToMember):
                body = decode(effect.message.body)
                self._sent(effect.message.member, body, joins=world_began)
                if isinstance(body, m.Assign):
                    fresh.append((effect.message.member, body))
        if self._view and not self._view & self._eligible:
            self._eligible |= self._view
        self._check_assigns(fresh)
        self._eligible -= gone
        if len(self._broken) > broken:
            self._check_nobody_is_left_with_broken()
        self._check_ledger()

    def _note(self, note: Note) -> None:
        if note.kind in ("leave", "evict"):
            self._view.discard(note.member)
            if note.cause != "drain":
                self._outstanding.pop(note.member, None)
        elif note.kind == "restarted_job":
            self.commits.clear()

    def _note_applied(self, key: str, body: m.Applied) -> None:
        self.commits.update(body.batches)
        self._outstanding[key].pop(body.round, None)
        assign = self._assigned[key, body.round].get(body.attempt)
        if assign is not None and assign.stages:
            self._eligible.add(key)

    def _sent(self, key: str, body: object, *, joins: bool) -> None:
        match body:
            case m.Start():
                self._view.add(key)
                if joins:
                    self._joiners.add(key)
                self.progressed = True
            case m.Abandon(number, _) | m.Skip(number, _):
                dropped = self._outstanding[key].pop(number, None)
                if dropped is not None:
                    self._broken.update(stage.communicator for stage in dropped.stages)
            case m.Commit(number, _):
                # Its operations are over at every member.
                self._outstanding[key].pop(number, None)
            case m.LastRound(number):
                self._last_round[key] = max(number, self._last_round.get(key, -1))

    # --- assignments --------------------------------------------------------------------------

    def _check_assigns(self, fresh: list[tuple[str, m.Assign]]) -> None:
        for key, assign in fresh:
            self._check_view(assign)
            self._assigned[key, assign.round][assign.attempt] = assign
            self._outstanding[key][assign.round] = assign
            for stage in assign.stages:
                self._check_stage(key, assign, stage)
        for key, assign in fresh:
            self._check_shrinks(key, assign)
        self._check_sums(fresh)
        for attempt in {(a.round, a.attempt) for _, a in fresh if a.kind != "train"}:
            self._check_flush(
                attempt, {key: a for key, a in fresh if (a.round, a.attempt) == attempt}
            )

    def _check_nobody_is_left_with_broken(self) -> None:
        peers = self.coordinator.roster.peers
        for key, rounds in self._outstanding.items():
            for assign in rounds.values() if key in peers else ():
                for stage in assign.stages:
                    _require(
                        stage.communicator not in self._broken,
                        f"{key} is left with broken communicator {stage.communicator} in {assign}",
                    )

    def _check_view(self, assign: m.Assign) -> None:
        view = (assign.view, assign.world_size, assign.first)
        known = self._view_of_round.setdefault(assign.round, view)
        _require(known == view, f"round {assign.round} has two views: {known} and {view}")

    def _check_stage(self, key: str, assign: m.Assign, stage: m.Stage) -> None:
        known = self._members_of.setdefault(stage.communicator, stage.members)
        _require(
            known == stage.members,
            f"communicator {stage.communicator} has members {known} and {stage.members}",
        )
        _require(key in stage.members, f"{key} is not in its own stage {stage}")
        _require(stage.communicator not in self._broken, f"{key} gets a broken one in {assign}")
        attempt = (assign.round, assign.attempt)
        self._weights[attempt, stage.communicator][key] = stage.weight
        if assign.kind == "train" and stage.weight > 0:
            _require(key in self._eligible, f"joiner {key} has weight {stage.weight} in {assign}")

    def _check_shrinks(self, key: str, assign: m.Assign) -> None:
        if key in self._last_round:
            _require(
                assign.round <= self._last_round[key], f"{key} drains but gets round {assign.round}"
            )
        if assign.attempt == 0:
            return
        before = self._assigned[key, assign.round].get(assign.attempt - 1)
        _require(before is not None, f"{key} is new in attempt {assign.attempt} of {assign.round}")
        assert before is not None
        was, now = _mates(key, before), _mates(key, assign)
        if assign.kind == "train":
            _require(now <= was, f"the group of {key} grew from {was} to {now} in {assign.round}")
            first = _mates(key, self._assigned[key, assign.round][0])
            _require(
                bool(first & self.touched) or len(first) == 1,
                f"{key} retries round {assign.round} ({assign.cause}) though no fault hit {first}",
            )
        if assign.strict:
            for mate in was:
                _require(
                    self._applied.get((mate, assign.round)) != assign.attempt - 1,
                    f"{key} retries strict round {assign.round} that {mate} has applied",
                )

    def _check_sums(self, fresh: list[tuple[str, m.Assign]]) -> None:
        for _, assign in fresh:
            for stage in assign.stages:
                weights = self._weights[(assign.round, assign.attempt), stage.communicator]
                _require(
                    set(weights) == set(stage.members),
                    f"{stage} of {assign.round} was given to {sorted(weights)} alone",
                )
                _require(
                    abs(sum(weights.values()) - 1) < 1e-9, f"weights {weights} do not sum to 1"
                )
                if assign.kind == "train":
                    _require(
                        len(set(weights.values()) - {0.0}) == 1, f"weights {weights} are not equal"
                    )

    # --- values -------------------------------------------------------------------------------

    def attempt_begun(self, key: str, assign: m.Assign, values: Values) -> None:
        self._before[key, assign.round, assign.attempt] = list(values)

    def applied(self, key: str, assign: m.Assign, values: Values) -> None:
        number, attempt = assign.round, assign.attempt
        last = self._last_applied.get(key, -1)
        _require(number > last, f"{key} applies round {number} after round {last}")
        self._last_applied[key] = number
        if assign.kind == "final":
            self.finalists.add(key)
        self._applied[key, number] = attempt
        self.progressed = True
        self.applied_count += 1
        if assign.kind != "train":
            decided = self._flush_attempt.setdefault(number, attempt)
            _require(decided == attempt, f"{key} applied attempt {attempt} of flush {number}")
        if assign.strict:
            for mate in _mates(key, assign):
                other = self._applied.get((mate, number), attempt)
                _require(other == attempt, f"{key} and {mate} applied two attempts of {number}")
        expected = self._expected(key, assign)
        if expected is not None:
            off = max(abs(a - b) for a, b in zip(values, expected, strict=True))
            _require(off < 1e-9, f"{key} is off by {off} in round {number} ({assign.kind})")

    def _expected(self, key: str, assign: m.Assign) -> Values | None:
        """Return the mean over the weighted members; None if it does not follow from starts."""
        attempt = (assign.round, assign.attempt)
        if not assign.stages:
            return self._before[key, *attempt]
        if assign.kind == "train":
            stage = assign.stages[0]
            weights = self._weights[attempt, stage.communicator]
            givers = [mate for mate in stage.members if weights[mate] > 0]
        else:
            givers = self._givers[attempt]
        values = [self._before[giver, *attempt] for giver in givers]
        return [sum(column) / len(column) for column in zip(*values, strict=True)]

    def _check_flush(self, attempt: Attempt, assigns: dict[str, m.Assign]) -> None:
        """Check that the stages of a flush give every member the plain mean of its givers."""
        rows = coefficients({key: assign.stages for key, assign in assigns.items()})
        givers = {key for row in rows.values() for key, share in row.items() if share > 0}
        _require(
            givers <= self._eligible and set(rows) - givers <= self._joiners,
            f"the flush {attempt} of {sorted(rows)} takes the values of {sorted(givers)}",
        )
        for key, row in rows.items():
            for giver in givers:
                off = abs(row.get(giver, 0.0) - 1 / len(givers))
                _require(off < 1e-9, f"{key} takes {row} in flush {attempt} of {sorted(givers)}")
        self._givers[attempt] = sorted(givers)

    # --- data ---------------------------------------------------------------------------------

    def _check_ledger(self) -> None:
        ledger = self.coordinator.ledger
        counted = ledger.committed + ledger.repeated
        _require(
            counted == sum(self.commits.values()),
            f"{sum(self.commits.values())} batches were committed but {counted} counted",
        )


def coefficients(stages: dict[str, tuple[m.Stage, ...]]) -> dict[str, dict[str, float]]:
    """Return how much of each member's values each member ends with after all stages."""
    rows = {key: {key: 1.0} for key in stages}
    position = dict.fromkeys(stages, 0)

    def current(key: str) -> m.Stage | None:
        mine = stages[key]
        return mine[position[key]] if position[key] < len(mine) else None

    moved = True
    while moved:
        moved = False
        for key in stages:
            stage = current(key)
            if stage is None:
                continue
            others = [current(mate) for mate in stage.members]
            if any(other is None or other.communicator != stage.communicator for other in others):
                continue
            total: dict[str, float] = defaultdict(float)
            for mate, other in zip(stage.members, others, strict=True):
                assert other is not None
                for giver, share in rows[mate].items():
                    total[giver] += share * other.weight
            for mate in stage.members:
                rows[mate] = {giver: share for giver, share in total.items() if share}
                position[mate] += 1
            moved = True
    _require(all(current(key) is None for key in stages), f"the stages {stages} deadlock")
    return rows


def _mates(key: str, assign: m.Assign) -> set[str]:
    return {key}.union(*(stage.members for stage in assign.stages))


_member_message = m.MEMBER.decode


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ViolationError(sentence)
