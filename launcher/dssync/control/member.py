"""A member's side of the round protocol. Sans IO; the worker's link and the simulator run it.

One rule matters most: a member decides alone, and at once, whether an attempt is applied or
abandoned, and never both. ``apply`` refuses an attempt that was abandoned, and an ``Abandon``
that arrives after ``apply`` finds the round behind it and is not answered: the ``Applied`` that
went out before is the answer.
"""

from collections import deque
from dataclasses import dataclass, field

from dssync.control import messages as m
from dssync.control.history import History, vote_on
from dssync.control.provisional import alone
from dssync.control.takeover import Adopt, NewTerm, NobodyLeads, Report, Vote


@dataclass
class Leases:
    """What a member holds of one track."""

    batches: deque[int] = field(default_factory=deque)
    """Leased and not yet drawn."""
    wanted: bool = False
    """An answer to ``Take`` is under way."""
    starved: bool = False
    """The last answer held nothing; the coordinator sends more when there is more."""


@dataclass
class MemberState:
    """What a member knows; all changes come through its methods."""

    next_round: int = 0
    """The round that this member takes part in next."""
    started: bool = False
    """It is admitted."""
    fetch: m.Fetch | None = None
    """The donor to get state from."""
    resume: bool = False
    """It is to read a checkpoint."""
    ledger: m.LedgerCopy | None = None
    """The latest copy, for a checkpoint."""
    may_publish: m.MayPublish | None = None
    refused: str | None = None
    benched: str | None = None
    """Why it is out of the view; it may enter again."""
    completed: m.Completed | None = None
    last_round: int | None = None
    """Draining: the last round it takes part in."""
    position: int = 0
    """Place in the view at admission."""
    weighted: bool = True
    """Whether its values counted at admission or adoption; those of a joiner do not."""
    term: int = 0
    """Of the coordinator that it hears."""
    leaderless: bool = False
    """Nobody leads: its rounds are provisional."""
    member_since: int = 0
    """The term in which it was admitted or adopted last."""
    history: History = field(default_factory=History)
    generation: int = 0
    """How often it entered again; leases of an earlier generation are void."""
    progress: float = 0.0
    """Committed fraction of the run, as of the last round that this member applied."""
    tracks: dict[int, "Leases"] = field(default_factory=dict)
    """What it holds of each track."""
    moments: str = ""
    """What of its optimizer's state it has said that it can average."""
    _assigns: dict[int, m.Assign] = field(default_factory=dict)
    _skipped: set[int] = field(default_factory=set)
    _commits: set[tuple[int, int]] = field(default_factory=set)

    def handle(self, message: m.ToMemberBody) -> list[m.FromMemberBody]:
        """Take in one message and return the answers."""
        match message:
            case m.Assign():
                self._assign(message)
            case m.Abandon(number, attempt):
                return self._abandon(number, attempt)
            case m.Commit(number, attempt, _):
                self._commits.add((number, attempt))
            case m.Skip(number, _):
                self._skip(number)
            case m.Leases(track, batches):
                self._take_leases(track, batches)
            case NewTerm(term):
                self.term, self.leaderless = term, False
                return [self._report()]
            case NobodyLeads():
                return self._go_on_alone()
            case _:
                self._take(message)
        return []

    def _take(self, message: m.ToMemberBody) -> None:
        """Take in what happens at the way in and out."""
        match message:
            case m.Start():
                self._start(message)
            case Adopt():
                self._adopt(message)
            case m.LastRound(number):
                self.last_round = number
            case m.Bench(reason):
                self.leaderless = False
                # Its groups went on without it: no attempt stands any more.
                self.benched = reason
                self.history.enter = ""
                self._assigns.clear()
            case _:
                self._note(message)

    def _note(self, message: m.ToMemberBody) -> None:
        """Take in what only the training thread acts on."""
        match message:
            case m.Fetch():
                self.fetch = message
            case m.Resume():
                self.resume = True
            case m.LedgerCopy():
                self.ledger = message
            case m.MayPublish():
                self.may_publish = message
            case m.Refuse(sentence):
                self.refused = sentence
            case m.Completed():
                self.completed = message
            case _:
                pass

    @property
    def assignment(self) -> m.Assign | None:
        """What to do in the next round, if it is known."""
        return self._assigns.get(self.next_round)

    def known(self, round_number: int) -> m.Assign | None:
        """Return what is known of a round that this member has not left behind."""
        return self._assigns.get(round_number)

    @property
    def upcoming(self) -> list[m.Assign]:
        """Known assignments, nearest first: communicators to build ahead."""
        return [self._assigns[number] for number in sorted(self._assigns)]

    @property
    def leaving(self) -> bool:
        """Whether it is draining and has taken part in its last round."""
        return self.last_round is not None and self.next_round > self.last_round

    @property
    def over(self) -> bool:
        """Whether it trains no further: the job is done, it leaves, or it was refused."""
        return self.completed is not None or self.last_round is not None or bool(self.refused)

    def leases(self, track: int) -> Leases:
        """Return what it holds of a track."""
        return self.tracks.setdefault(track, Leases())

    @property
    def starved(self) -> bool:
        """Whether there was nothing more to lease, of any track, when it last asked."""
        return bool(self.tracks) and all(each.starved for each in self.tracks.values())

    def ended_by(self, message: m.ToMemberBody) -> list[m.Assign]:
        """Return the assignments that a message ends; ask before ``handle``."""
        if isinstance(message, m.Abandon | m.Skip):
            known = self.known(message.round)
            return [] if known is None or self.is_committed(known) else [known]
        if isinstance(message, Adopt):
            kept = {(each.round, each.attempt) for each in message.commits}
            return [a for a in self.upcoming if (a.round, a.attempt) not in kept]
        return self.upcoming if isinstance(message, m.Bench) else []

    def is_current(self, assign: m.Assign) -> bool:
        """Tell whether this attempt still stands."""
        return self._assigns.get(self.next_round) is assign

    def is_committed(self, assign: m.Assign) -> bool:
        """Tell whether a strict attempt was decided."""
        return (assign.round, assign.attempt) in self._commits

    def apply(self, assign: m.Assign, batches: tuple[int, ...]) -> m.Applied | None:
        """Decide that the attempt's result is applied; None if the attempt no longer stands."""
        if not self.is_current(assign):
            return None
        decided = self.is_committed(assign)
        self._advance_past(assign.round)
        self.progress = max(self.progress, assign.progress)
        self.history.apply(assign)
        return m.Applied(assign.round, assign.attempt, () if decided else batches)

    def restart(self) -> None:
        """Forget everything about rounds before entering again."""
        fresh = MemberState(
            next_round=self.next_round,
            last_round=self.last_round,
            generation=self.generation + 1,
            progress=self.progress,
            term=self.term,
            history=History(register=self.history.register, known_round=self.history.known_round),
        )
        self.__dict__.update(fresh.__dict__)

    def _start(self, start: m.Start) -> None:
        if start.generation != self.generation:
            return  # It has entered again meanwhile, and holds no state yet.
        self.started, self.next_round = True, start.round
        self.member_since = self.term
        self.position, self.weighted = start.position, start.weighted
        # What was leased before belongs to others now, and its answers have all arrived.
        self.tracks.clear()
        self._drop_before(start.round)

    def _assign(self, assign: m.Assign) -> None:
        if not self.started:
            return  # It was sent before this member left its last life in the view.
        known = self._assigns.get(assign.round)
        newer = known is None or assign.attempt > known.attempt
        if assign.round >= self.next_round and newer and assign.round not in self._skipped:
            self._assigns[assign.round] = assign
            self.history.known_round = max(self.history.known_round, assign.round)
            self.history.counts = self.history.counts or assign.weighted

    def _abandon(self, number: int, attempt: int) -> list[m.FromMemberBody]:
        if number < self.next_round:
            return []
        known = self._assigns.get(number)
        if known is not None and known.attempt == attempt:
            del self._assigns[number]
        return [m.Abandoned(number, attempt)]

    def _skip(self, number: int) -> None:
        known = self._assigns.get(number)
        if known is not None and self.is_committed(known):
            return  # The decision came first: what it commits counts this member's values.
        self._skipped.add(number)
        self._assigns.pop(number, None)
        if number == self.next_round:
            self._advance_past(number)

    def _take_leases(self, track: int, batches: tuple[int, ...]) -> None:
        leases = self.leases(track)
        leases.batches.extend(batches)
        leases.wanted, leases.starved = False, not batches
        self._extend()

    def _advance_past(self, number: int) -> None:
        self.next_round = number + 1
        while self.next_round in self._skipped:
            self.next_round += 1
        self._drop_before(self.next_round)
        self._extend()

    def _drop_before(self, number: int) -> None:
        self._assigns = {r: a for r, a in self._assigns.items() if r >= number}
        self._skipped = {r for r in self._skipped if r >= number}
        self._commits = {c for c in self._commits if c[0] >= number}

    # --- nobody leads -------------------------------------------------------------------------

    def may_give_up(self, assign: m.Assign) -> bool:
        """Tell whether it is for this member alone to give an attempt up."""
        return self.leaderless and not assign.strict and self.is_current(assign)

    def give_up(self, assign: m.Assign) -> bool:
        """Keep the values in a round whose group cannot be completed while nobody leads."""
        if not self.may_give_up(assign):
            return False
        self._assigns[assign.round] = alone(assign)
        return True

    def _go_on_alone(self) -> list[m.FromMemberBody]:
        """Begin with provisional rounds; repeat, for the launcher, what nobody has answered."""
        if not self.started or self.over:
            return []
        first, self.leaderless = not self.leaderless, True
        self._extend()
        return [*self._open_takes()] if first else []

    def _extend(self) -> None:
        """While nobody leads, set the next round, if this member has anything to train on."""
        if self.leaderless and self.next_round not in self._assigns and not self.starved:
            repeated = self.history.provisional.assignment(self.next_round)
            # Nothing would ever end the rounds of a member that trains on nothing and has no mates.
            if repeated is not None and (repeated.weighted or repeated.stages):
                self._assigns[self.next_round] = repeated
                self.history.known_round = max(self.history.known_round, self.next_round)

    # --- another term -------------------------------------------------------------------------

    def _report(self) -> Report:
        history = self.history
        return Report(
            term=self.term,
            member_since=self.member_since,
            enter=history.enter,
            started=self.started,
            next_round=self.next_round,
            known_round=history.known_round,
            applied_round=history.applied_round,
            weighted=self.weighted or history.counts,
            last_round=self.last_round,
            votes=(*history.applied, *self._open_votes()),
            donor=history.donor,
            register=history.register,
            takes=tuple(m.MEMBER.encode_text(each) for each in self._open_takes()),
            flush_asked=history.flush_asked,
            stop_asked=history.stop_asked,
            completed=self.completed is not None,
            moments=self.moments,
        )

    def _open_takes(self) -> list[m.Take]:
        """Return its requests for batches that were not answered with any."""
        asked = [t for t, each in self.tracks.items() if each.wanted or each.starved]
        return self.history.takes(asked)

    def _open_votes(self) -> list[Vote]:
        """Return what it has confirmed, or was told to commit, and has not applied."""
        assign = self.assignment
        if assign is None or not assign.strict:
            return []
        if self.is_committed(assign):
            return [vote_on(assign, decided=True)]
        confirm = self.history.confirmed
        if confirm is None or (confirm.round, confirm.attempt) != (assign.round, assign.attempt):
            return []
        return [vote_on(assign, decided=False, batches=confirm.batches)]

    def _adopt(self, adopt: Adopt) -> None:
        """Go on under the new term: only what it commits of the old one still stands."""
        self.member_since = self.term
        self.position, self.weighted = adopt.position, adopt.weighted
        self._commits = {(each.round, each.attempt) for each in adopt.commits}
        self._assigns = {r: a for r, a in self._assigns.items() if (r, a.attempt) in self._commits}
        missed = range(self.next_round, adopt.round)
        self._skipped.update(r for r in missed if r not in self._assigns)
        if self.next_round in self._skipped:
            self._advance_past(self.next_round)
