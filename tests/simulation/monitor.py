"""Watches what goes in and out of the coordinator; raises when an invariant is violated.

Messages and notes are the evidence, so that the invariants hold for any coordinator that speaks
the protocol: who is in the view, whose values count and what is assigned all follow from them.
"""

from collections import Counter
from collections.abc import Iterable

from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import Effect, Event, Note, Received, Send
from dssync.control.ledger import committed_in
from dssync.control.takeover import Adopt
from simulation import wire
from simulation.assignments import Assignments
from simulation.coverage import Coverage
from simulation.values import Values
from simulation.violation import require


class Monitor:
    """The invariants of one run."""

    def __init__(self, coordinator: Coordinator, coverage: Coverage) -> None:
        self.touched: set[str] = set()
        """Members that a fault has hit, now or earlier."""
        self.events = 0
        """Messages of members so far."""
        self.last = ""
        """The latest of them, for the trace."""
        self.progressed = False
        self.commits: Counter[int] = Counter()
        self.assignments = Assignments(self.touched)
        self.values = Values(self.assignments)
        self._coordinator = coordinator
        self._coverage = coverage
        self._view: set[str] = set()
        self._repeated_before = 0
        self._counted: set[str] = set()
        """Members whose values have counted in an earlier term."""
        self._decisions: set[tuple[int, int, tuple[int, ...]]] = set()

    def take_over(self, coordinator: Coordinator) -> None:
        """Watch the coordinator of a new term; what members hold of the old one may end."""
        self._coordinator = coordinator
        self._view.clear()
        self._counted |= self.assignments.eligible
        self.assignments.eligible.clear()
        self.assignments.new_term()
        self.values.new_term()

    def before(self, event: Event, now: float) -> None:
        """Look at an event before the coordinator handles it."""
        self._coverage.observe(self._coordinator, event, now)
        if not isinstance(event, Received) or not isinstance(event.message, m.FromMember):
            return
        key, text = event.message.member, event.message.body
        self.events += 1
        self.last = f"{key} {text}"
        body = wire.from_member(text)
        if isinstance(body, m.Applied | m.Confirm) and body.batches:
            assign = self.assignments.of(key, body.round, body.attempt)
            counts = assign is None or assign.weighted
            require(counts, f"{key} trained for round {body.round}, where it has no weight")
        if isinstance(body, m.Applied):
            self.progressed = True
            if key in self._coordinator.roster.peers:
                self.commits.update(body.batches)
                self.assignments.applied(key, body)

    def after(self, effects: Iterable[Effect]) -> None:
        """Look at what the coordinator wants done."""
        joins, gone = bool(self._view), set()
        fresh: list[tuple[str, m.Assign]] = []
        for effect in effects:
            if isinstance(effect, Note):
                gone |= self._noted(effect)
            elif isinstance(effect, Send) and isinstance(effect.message, m.ToMember):
                key, body = effect.message.member, wire.to_member(effect.message.body)
                self._sent(key, body, joins=joins)
                if isinstance(body, m.Assign):
                    fresh.append((key, body))
        if self._view and not self._view & self.assignments.eligible:
            # Nobody is left whose values count: then everybody's do.
            self.assignments.eligible |= self._view
        self._check_adopted(effects)
        self.assignments.check(fresh, self._coordinator.roster.peers.keys())
        self._counted |= self.assignments.eligible
        self.assignments.eligible -= gone
        self._check_ledger()

    def _noted(self, note: Note) -> set[str]:
        """Return who is gone."""
        if note.kind == "restarted_job":
            self.commits.clear()
        if note.kind == "adopted":
            self._recount()
        if note.kind not in ("leave", "evict"):
            return set()
        self._view.discard(note.member)
        if note.cause in ("lease", "deadline", "eof"):
            self._require_touched(note.member, f"evicted ({note.cause})")
        if note.cause == "drain":
            return set()
        self.assignments.forget(note.member)
        return {note.member}

    def _sent(self, key: str, body: object, *, joins: bool) -> None:
        match body:
            case m.Assign():
                self.assignments.assigned(key, body)
            case m.Start():
                self.progressed = True
                self._view.add(key)
                if joins:
                    self.assignments.joiners.add(key)
            case Adopt(weighted=weighted):
                self.progressed = True
                self._view.add(key)
                if weighted:
                    counts = key in self._counted | self.values.summed
                    require(counts, f"{key} gets weight by adoption")
                    self.assignments.eligible.add(key)
            case m.Abandon(number, _):
                self.assignments.given_up(key, number)
            case m.Skip(number, _):
                self._require_touched(key, f"skipped in round {number}")
                kind = self.assignments.kind_of(key, number)
                require(kind == "train", f"{key} is skipped in round {number}, a {kind}")
                self.assignments.given_up(key, number)
            case m.Commit(number, attempt, batches):
                self.assignments.committed(key, number)
                self._decided(number, attempt, batches)
            case m.LastRound(number):
                self.assignments.drains(key, number)

    def _recount(self) -> None:
        """Take over what a new coordinator knows to be committed."""
        ledger = self._coordinator.ledger
        done = [batch for batch in range(ledger.total) if committed_in(ledger.state, batch)]
        require(len(done) == ledger.committed, f"{ledger.committed} of {len(done)} are counted")
        self.commits = Counter(done)
        self._repeated_before = ledger.repeated

    def _check_adopted(self, effects: Iterable[Effect]) -> None:
        """A strict attempt that one survivor applied is committed for every other."""
        adopted: dict[str, Adopt] = {}
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, m.ToMember):
                body = wire.to_member(effect.message.body)
                if isinstance(body, Adopt):
                    adopted[effect.message.member] = body
        for key, body in adopted.items():
            told = {(each.round, each.attempt) for each in body.commits}
            for mate in adopted:
                missed = self.assignments.missed(key, mate) - told
                require(not missed, f"{mate} applied {missed}, which {key} is told to drop")

    def _decided(self, number: int, attempt: int, batches: tuple[int, ...]) -> None:
        """Count what a decision commits, once for all members that are told."""
        if (number, attempt, batches) not in self._decisions:
            self._decisions.add((number, attempt, batches))
            self.commits.update(batches)

    def _require_touched(self, key: str, what: str) -> None:
        require(key in self.touched, f"{key} is {what} though no fault has hit it")

    def _check_ledger(self) -> None:
        if self._coordinator.gathering is not None:
            return
        ledger = self._coordinator.ledger
        repeated = ledger.repeated - self._repeated_before
        counted, said = ledger.committed + repeated, self.commits.total()
        require(counted == said, f"members committed {said} batches but {counted} are counted")
        world = self._coordinator.world
        if world is not None and world.strict:
            twice = [batch for batch, count in self.commits.items() if count > 1]
            require(not twice, f"batches {twice} are committed twice")
