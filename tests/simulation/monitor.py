"""Watches what goes in and out of one coordinator; raises when an invariant is violated.

Messages and notes are the evidence, so that the invariants hold for any coordinator that speaks
the protocol: who is in the view, whose values count and what is assigned all follow from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import Effect, Event, Note, Received, Resigning, Send
from dssync.control.ledger import committed_in
from dssync.control.takeover import Adopt, Report
from dssync.control.view import slot_of
from simulation import wire
from simulation.answers import Answers
from simulation.assignments import Assignments
from simulation.observer import Observer
from simulation.values import Values
from simulation.violation import require

LAST_WORD_SECONDS = 9.0
"""So long at least, by any clock, a coordinator tries to write that the job is done."""


class Monitor:
    """The invariants of one term."""

    def __init__(self, coordinator: Coordinator, observer: Observer, *, is_strict: bool) -> None:
        self.term = coordinator.job.term
        self.is_strict = is_strict
        self.assignments = Assignments(observer, self.term)
        self.values = Values(self.assignments)
        self._answers = Answers(coordinator)
        self.known: set[str] = set()
        """Members that were let in or adopted, and neither left nor were put out."""
        self._draining: set[str] = set()
        """Members that leave; no note tells when they have, or were lost before."""
        self._observer = observer
        self.coordinator = coordinator
        self._view: set[str] = set()
        self._commits: Counter[int] = Counter()
        self.ever_committed: set[int] = set()
        """Also before the data began to count anew: a survivor may go on with that."""
        self._said = 0
        """Batches that members have said to be committed."""
        self._twice: set[int] = set()
        self._repeated_before = 0
        self._decisions: set[tuple[int, int, tuple[int, ...]]] = set()
        self._reports: dict[str, Report] = {}
        """Of members, before the term begins."""
        self._standing: dict[int, m.Standing] = {}
        """What each launcher says before the term begins."""
        self._adopted: dict[str, Adopt] = {}
        self._resigning = False
        """It was told to freeze nothing more."""
        self._beats = False
        """A launcher only says that it is there; nothing follows from that before the next tick."""
        self._starved: set[str] = set()
        """Members that asked for batches in vain, last."""
        self._seconds = 0.0
        """The coordinator's own time, at its last event."""
        self._completed_at: float | None = None
        """When it called the job done."""

    def before(self, event: Event, now: float) -> None:
        """Look at an event before the coordinator, whose clock says ``now``, handles it."""
        self._seconds = now
        self._observer.coverage.observe(self.coordinator, event, now)
        if type(event) is Resigning:
            self._resigning = event.wanted
        self._beats = type(event) is Received and type(event.message) is m.Heartbeat
        if type(event) is not Received:
            return
        if type(event.message) is m.Standing:
            self._standing[event.slot] = event.message
        if type(event.message) is not m.FromMember:
            return
        key, text = event.message.member, event.message.body
        self._observer.note(f"{self.term} {key} {text}")
        body = wire.from_member(text)
        self._answers.said(key, body)
        match body:
            case m.Enter():
                self.assignments.forget(key)
            case m.Applied() | m.Confirm():
                self._check_trained(key, body)
            case m.Failed(number, tried, reason) if reason == wire.TIMED_OUT:
                holds = not self.coordinator.job.may_decide(now)
                self.assignments.timed_out(key, number, tried, holds=holds)
            case m.Failed(number, tried, wire.NOT_BUILT) if self._is_hit():
                self.assignments.not_built(key, number, tried)
            case Report() if self.coordinator.gathering is not None and body.term == self.term:
                self._reports[key] = body

    def _is_hit(self) -> bool:
        return self._observer.cell.holders.get(self.term, "") in self._observer.touched

    def _check_trained(self, key: str, body: m.Applied | m.Confirm) -> None:
        if body.batches:
            assign = self.assignments.of(key, body.round, body.attempt)
            if assign is not None and not assign.weighted:
                require(False, f"{key} trained for round {body.round}, where it has no weight")
        if type(body) is m.Applied:
            self._observer.progressed = True
            if key in self.coordinator.roster.peers:
                self._commit(body.batches)
                self._knows(slot_of(key), body.batches)
                self.assignments.applied(key, body)

    def after(self, effects: Iterable[Effect]) -> None:
        """Look at what the coordinator wants done."""
        joins, gone = bool(self._view), set()
        draining = self._draining.copy()
        fresh: list[tuple[str, m.Assign]] = []
        for effect in effects:
            if type(effect) is Note:
                gone |= self._noted(effect)
            elif type(effect) is Send and type(effect.message) is m.ToMember:
                key, body = effect.message.member, wire.to_member(effect.message.body)
                self._sent(key, body, joins=joins)
                # Others train already, too, where a term adopts some and starts some at once.
                joins = joins or type(body) is Adopt
                if type(body) is m.Assign:
                    fresh.append((key, body))
                    self._observer.goes_on(self.term)
            elif type(effect) is Send and type(effect.message) is m.JobCompleted:
                self._tells_of_the_end()
        eligible = self.assignments.eligible
        # A view that drains as a whole has a last flush.
        for present in (self._view, self._view | (self._draining - draining)):
            if present and not present & eligible:
                # Nobody is left whose values count: then everybody's do.
                eligible |= present
        for key, assign in fresh:
            if not assign.attempt:
                self._decides(key, f"freezes round {assign.round}")
            self._answers.assigned(key, assign)
        self._answers.check_copies(self._commits)
        self.assignments.check(fresh, self.coordinator.roster.peers.keys())
        self._observer.counted |= eligible
        eligible -= gone
        left = self._draining - self.coordinator.roster.peers.keys()
        self._draining -= left
        self.known -= left
        if self.coordinator.gathering is None:
            self._check_ledger()
            self._check_fed()
            self._check_frozen()

    def _tells_of_the_end(self) -> None:
        since = self._completed_at
        given_up = since is not None and self._observer.now - since >= LAST_WORD_SECONDS
        self._observer.told_of_the_end(self.term, given_up=given_up)

    def _decides(self, key: str, what: str) -> None:
        """A round is frozen or committed with a member that follows from elsewhere."""
        if self._observer.follows(slot_of(key), self.term):
            holds = not self.coordinator.job.may_decide(self._seconds)
            self._observer.decides(self.term, holds=holds, what=what)

    def _noted(self, note: Note) -> set[str]:
        """Return who is gone."""
        if note.kind == "restarted_job":
            self._recommit(())
            self._repeated_before = self.coordinator.ledger.repeated
            self._observer.restarted()
        if note.kind == "completed":
            self._completed_at = self._observer.now
        if note.kind == "adopted":
            self._recount()
            self._answers.adopted(self._reports, self._adopted)
            self._check_adopted()
        if note.kind not in ("leave", "evict"):
            return set()
        self._view.discard(note.member)
        self._starved.discard(note.member)
        if note.cause in ("lease", "deadline", "eof"):
            self._require_touched(note.member, f"evicted ({note.cause})")
        if note.cause == "drain":
            self._draining.add(note.member)
            return set()
        self.known.discard(note.member)
        self.assignments.forget(note.member)
        return {note.member}

    def _sent(self, key: str, body: object, *, joins: bool) -> None:
        match body:
            case m.Assign():
                self.assignments.assigned(key, body)
            case m.Start(number):
                self._observer.progressed = True
                self._view.add(key)
                self.known.add(key)
                self.assignments.started(key, number)
                self.values.started(key)
                self._observer.began(key)
                if joins:
                    self._observer.joiners.add(key)
            case Adopt():
                self._adopts(key, body)
            case m.Abandon(number, _):
                self.assignments.given_up(key, number)
            case m.Skip(number, _):
                self._require_touched(key, f"skipped in round {number}")
                kind = self.assignments.kind_of(key, number)
                require(kind == "train", f"{key} is skipped in round {number}, a {kind}")
                self.assignments.given_up(key, number)
            case m.Commit(number, attempt, batches, earlier):
                require(self.ever_committed.issuperset(earlier), f"{earlier} are not committed")
                self._knows(slot_of(key), batches + earlier)
                self.assignments.committed(key, number)
                self._observer.decided[key, self.term, number, attempt] = batches
                self._decides(key, f"commits round {number}")
                self._decided(number, attempt, batches)
            case m.LedgerCopy():
                self._answers.copied(body)
            case m.MayPublish(number):
                self._decides(key, f"lets a checkpoint of round {number} be published")
            case m.LastRound(number):
                self.assignments.drains(key, number)
            case m.Leases(_, batches):
                (self._starved.discard if batches else self._starved.add)(key)

    # --- a new term ---------------------------------------------------------------------------

    def _adopts(self, key: str, body: Adopt) -> None:
        self._observer.progressed = True
        self._view.add(key)
        self.known.add(key)
        self._adopted[key] = body
        self._decides(key, "adopts members")
        if body.weighted:
            counts = key in self._observer.counted | self._observer.summed
            require(counts, f"{key} gets weight by adoption")
            self.assignments.eligible.add(key)

    def _recount(self) -> None:
        """Take over what a new coordinator knows to be committed."""
        ledger = self.coordinator.ledger
        state = ledger.state
        done = [batch for batch in range(ledger.total) if committed_in(state, batch)]
        require(len(done) == ledger.committed, f"{ledger.committed} of {len(done)} are counted")
        self._check_history(done)
        self._recommit(done)
        if self.is_strict:
            for key in self._adopted:
                self._observer.adopted(key, self._commits.keys())
            self._observer.forget(self._commits.keys())
        self._repeated_before = ledger.repeated

    def _latest(self) -> int:
        """Return the last term in which a survivor was admitted or adopted."""
        started = [r.member_since for r in self._reports.values() if r.started and r.enter]
        return max(started, default=0)

    def _check_history(self, done: list[int]) -> None:
        """Nothing counts as committed that only a side has committed which was given up."""
        latest = self._latest()
        if not latest or not self._adopted:
            return
        known = {
            b for body in self._adopted.values() for each in body.commits for b in each.batches
        }
        for term, former in self._observer.monitors.items():
            if latest <= term < self.term:
                known |= former.ever_committed | self._observer.applied_batches[term]
        lost = [batch for batch in done if batch not in known]
        require(not lost, f"term {self.term} counts {lost} of a history that was given up")

    def _check_adopted(self) -> None:
        """Whom the last term knows goes on; what one survivor applied is committed for all."""
        told = self._adopted
        started = {key: r for key, r in self._reports.items() if r.started and r.enter}
        latest = self._latest()
        former = self._observer.monitors.get(latest)
        if former is None:
            return
        dropped = {key for key, r in started.items() if r.member_since == latest} - told.keys()
        listed = {key for standing in self._standing.values() for key in standing.members}
        dropped &= former.known & listed
        dropped -= {key for key in dropped if started[key].completed}
        dropped -= {key for key in dropped if self._is_overtaken(key, latest)}
        if self._observer.cell.ended_term:
            dropped &= self._observer.finalists  # The others get the last values, or hear of them.
        require(not dropped, f"term {self.term} does not adopt {dropped}")
        for key, body in told.items():
            commits = {(each.round, each.attempt) for each in body.commits}
            for mate in told:
                missed = former.assignments.missed(key, mate) - commits
                require(not missed, f"{mate} applied {missed}, which {key} is told to drop")

    def _is_overtaken(self, key: str, since: int) -> bool:
        """Tell whether a later term has committed what a member holds, or leased it to another.

        That term went on without it and leased its batches again, and all its members are lost.
        The ledger is that of the later term, so nobody can account for the member's rounds
        (design 4.6): it enters again with its state.
        """
        ledgers = [standing.ledger for standing in self._standing.values()]
        held = {b for each in ledgers for h in each.held if h.member == key for b in h.batches}
        return any(
            batch in each.committed
            or (each.ledger and committed_in(each.ledger, batch))
            or any(batch in h.batches for h in each.held if h.member != key)
            for each in ledgers
            if each.term > since
            for batch in held - {*each.provisional}
        )

    # --- data ---------------------------------------------------------------------------------

    def _decided(self, number: int, attempt: int, batches: tuple[int, ...]) -> None:
        """Count what a decision commits, once for all members that are told."""
        if (number, attempt, batches) not in self._decisions:
            self._decisions.add((number, attempt, batches))
            self._commit(batches)

    def _commit(self, batches: tuple[int, ...]) -> None:
        self.ever_committed.update(batches)
        for batch in batches:
            self._commits[batch] += 1
            if self._commits[batch] > 1:
                self._twice.add(batch)
        self._said += len(batches)

    def _knows(self, slot: int, batches: tuple[int, ...]) -> None:
        """A launcher has a record of what is committed; the coordinator's own ends with it."""
        pod = self.coordinator.roster.pods.get(slot)
        if pod is not None and pod.uid != self._observer.cell.holders.get(self.term):
            self._observer.recorded.update(batches)

    def _recommit(self, batches: Iterable[int]) -> None:
        self._commits = Counter(batches)
        self.ever_committed.update(self._commits)
        self._said = self._commits.total()
        self._twice.clear()

    def _require_touched(self, key: str, what: str) -> None:
        if key not in self._observer.touched and not self._observer.is_over(self.term):
            require(False, f"{key} is {what} though no fault has hit it")

    def _check_fed(self) -> None:
        """What can be trained on again is offered to those who asked in vain, up to the end."""
        if self.coordinator.job.completed:
            return  # After a stop, what members still held is left to nobody.
        hungry = self._starved & self._view
        if (
            hungry
            and self.coordinator.world is not None
            and self.coordinator.ledger.available_of(0)
        ):
            require(False, f"{sorted(hungry)} are not offered what is available again")

    def _check_frozen(self) -> None:
        """Who takes part has a round to go on with, unless the coordinator is to freeze none."""
        world, job = self.coordinator.world, self.coordinator.job
        if self._beats or world is None or world.rounds.lead or not self._view or self._resigning:
            return
        waits = job.completed or world.final_frozen or not job.may_decide(self._seconds)
        require(waits, f"{sorted(self._view)} have no round to go on with")

    def _check_ledger(self) -> None:
        ledger = self.coordinator.ledger
        counted = ledger.committed + ledger.repeated - self._repeated_before
        if counted != self._said:
            said = self._said
            require(False, f"members committed {said} batches but {counted} are counted")
        if self._twice and self.is_strict:
            require(False, f"batches {sorted(self._twice)} are committed twice")
