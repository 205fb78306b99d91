"""Who coordinates: one launcher's side of the election. Sans IO.

The arbiter decides, by compare-and-swap: of two candidates that read one version, one wins, and
each success raises the term. All other rules only keep candidates from deposing a coordinator
that lives: who loses it asks the others first, whoever is linked to it blocks the candidate, and
who reaches half of the last view or less, without proof that the rest has ended, challenges the
coordinator in the arbiter and waits for its answer.
"""

from dataclasses import replace

from msgspec import structs

from dssync import contract
from dssync.control import ballots as b
from dssync.control.adoption import Electorate
from dssync.control.ballots import ElectionSettings, Phase
from dssync.control.peers import Answer, Ballot, Leader, rank
from dssync.control.record import Record, launchers_value, missing_value
from dssync.control.takeover import Launcher


class Election:
    """One launcher in the election.

    Args:
        me: this launcher.
        settings: the numbers.
        now: the time.
    """

    def __init__(self, me: Launcher, settings: ElectionSettings, now: float) -> None:
        self.me = me
        self.settings = settings
        self.phase = Phase.CANDIDATE
        self.leader: Leader | None = None
        """The coordinator that this launcher follows, or is."""
        self.view: tuple[Launcher, ...] = ()
        """The launchers of the last view."""
        self._missing: tuple[Launcher, ...] = ()
        """Launchers that its coordinator missed."""
        self._effects: list[b.Effect] = []
        self._since = now
        self._patience = 0.0
        self._record: Record | None = None
        self._looked = now
        self._asks_arbiter = False
        self._asked = now
        self._next_look = now
        self._next_ask = now
        self._answers: dict[str, tuple[Answer, float]] = {}
        self._gone: frozenset[str] = frozenset()
        self._blocked_since: float | None = None
        self._challenge_after = now
        self._challenged = False
        self._unanswered_since = now
        """So long a challenge has stood before a coordinator that could read it."""
        self._appointed = False
        self._is_linked = False
        """Its coordinator is at the other end of a link, also while it stands in its place."""
        self._finished = False
        """Nobody here has anything to hear of the end any more; who has stands, to hear of it."""
        self._is_over = False
        """The job is done, as the record or a coordinator says."""
        self._fenced = False

    @property
    def term(self) -> int:
        """The highest term that this launcher has followed or led."""
        return self.leader.term if self.leader is not None else 0

    @property
    def leads(self) -> bool:
        """Whether the coordinator is in this launcher."""
        return self.phase in (Phase.LEADING, Phase.STEPPING_DOWN)

    @property
    def answer(self) -> Answer:
        """What this launcher tells a candidate."""
        linked = self.leads or self.phase is Phase.FOLLOWING
        return Answer(self.me.uid, self.leader if linked else None)

    def handle(self, event: b.Event, now: float) -> list[b.Effect]:
        """Take in one event and return what to do, in order."""
        match event:
            case b.Looked(record):
                self._asks_arbiter = False
                self._read(record, now)
            case b.Swapped(record):
                self._asks_arbiter, self._record, self._next_look = False, None, now
                if record is not None:
                    self._next_look = now + self.settings.look_seconds
                    self._read(record, now)
            case b.ArbiterFailed():
                self._asks_arbiter, self._record = False, None
                self._next_look = now + self.settings.retry_seconds
                self._unanswered_since = now  # The coordinator may have been answered no better.
                if self._is_leaderless(now):
                    self._do(b.NobodyLeads())
            case b.Ticked():
                pass
            case _:
                self._take(event, now)
        self._advance(now)
        effects, self._effects = self._effects, []
        return effects

    # --- events -------------------------------------------------------------------------------

    def _take(self, event: b.Event, now: float) -> None:
        match event:
            case b.Linked(term) if not self.leads:
                self._linked(term, now)
            case b.LinkLost():
                self._unlinked(now)
            case b.Heard(leader):
                self._heard(leader, now)
            case b.Answered(answer):
                self._answers[answer.uid] = (answer, now)
                if answer.leader is not None:
                    self._heard(answer.leader, now)
            case b.Viewed(launchers, missing):
                self.view, self._missing = launchers, missing
            case b.ExitsSeen(uids):
                self._gone |= uids
            case b.Appointed(term) if term == self.term and not self.leads:
                self._enter(Phase.CANDIDATE, now)
                self._appointed = True
            case b.Resign(successor) if self.phase is Phase.LEADING:
                self._enter(Phase.STEPPING_DOWN, now)
                self._do(b.HandOver(successor, self.term))
            case b.Stay() if self.phase is Phase.STEPPING_DOWN:
                self._enter(Phase.LEADING, now)
            case b.Finished(told):
                self._finished, self._is_over = told, True
            case _:
                pass

    def _linked(self, term: int, now: float) -> None:
        if self.leader is not None:
            self.leader = structs.replace(self.leader, term=max(term, self.leader.term))
        self._blocked_since, self._appointed, self._is_linked = None, False, True
        self._enter(Phase.FOLLOWING, now)

    def _unlinked(self, now: float) -> None:
        self._is_linked = False
        if self.phase is Phase.FOLLOWING:
            self._enter(Phase.SUSPECTING, now)
            self._patience = self.settings.reconnect_seconds

    def _heard(self, leader: Leader, now: float) -> None:
        if leader.term <= self.term or leader.uid == self.me.uid:
            return
        if self.leads:
            self._next_look = now  # The arbiter knows whether that is so.
        else:
            self._follow(leader, now)

    def _follow(self, leader: Leader, now: float) -> None:
        self.leader, self._blocked_since, self._is_linked = leader, None, False
        self._patience, self._appointed = self.settings.link_seconds, False
        self._enter(Phase.SUSPECTING, now)
        self._do(b.Follow(leader))

    def _read(self, record: Record, now: float) -> None:
        """Take in the record: it may name this launcher, a new coordinator, or nobody."""
        self._record, self._looked = record, now
        self._gone |= record.gone
        self._is_over = self._is_over or record.completed
        holder = Leader(record.term, record.holder, record.values.get(contract.RECORD_ADDRESS, ""))
        if self.me.uid in record.gone:
            self._fence(now)
        elif self.leads:
            if holder.uid == self.me.uid and holder.term == self.term:
                self._keep(record, now)
            else:
                self._do(b.StepDown())
                self._follow_or_stand(holder, now)
        elif holder.uid == self.me.uid and holder.term > self.term:
            self._lead(record, now)
        elif holder.uid and (self.leader is None or holder.term > self.term):
            self.view = self.view or record.launchers
            if holder.uid not in self._gone:
                self._follow(holder, now)
            else:
                self.leader = holder

    def _fence(self, now: float) -> None:
        """Give way to the pod that has this one's slot; coordinate and stand no more."""
        if not self._fenced:
            self._fenced = True
            if self.leads:
                self._do(b.StepDown())
                self._enter(Phase.CANDIDATE, now)
            self._do(b.Fenced())

    def _follow_or_stand(self, holder: Leader, now: float) -> None:
        if holder.uid and holder.uid != self.me.uid:
            self._follow(holder, now)
        else:
            self._enter(Phase.CANDIDATE, now)

    # --- leading ------------------------------------------------------------------------------

    def _lead(self, record: Record, now: float) -> None:
        everybody = frozenset(each.uid for each in self.view)
        reached = self._reached(now) | {self.me.uid}
        expected = (everybody - self._gone) | {self.me.uid}
        self.leader = Leader(record.term, self.me.uid, self.me.address)
        self._appointed, self._is_linked, self._blocked_since = False, False, None
        self._enter(Phase.LEADING, now)
        living = tuple(each for each in self._others if each.uid not in self._gone)
        known = (*living, *self._outside(record))
        electorate = Electorate(expected, reached, self._is_over, known)
        self._do(b.Lead(record, electorate, self._others, now - self._asked))

    def _outside(self, record: Record) -> tuple[Launcher, ...]:
        """Return who is not in this launcher's last view but may live, as far as it knows.

        The record may be of a later view than the one that this launcher heard of last.
        """
        told = (*self._missing, *record.missing, *record.launchers)
        passed = self._gone | {self.me.uid} | {each.uid for each in self.view}
        return tuple({each.uid: each for each in told if each.uid not in passed}.values())

    def _keep(self, record: Record, now: float) -> None:
        """Go on coordinating: answer a challenge."""
        self._do(b.Hold(record, now - self._asked))
        if record.challenged:
            self._swap(record, replace(record, values=_unchallenged(record)), now)

    # --- standing -----------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        if (self._finished or self._fenced) and not self.leads:
            return
        if self.phase is Phase.SUSPECTING and now - self._since >= self._patience:
            # What others said when it last asked, they said before it followed somebody.
            self._answers.clear()
            self._enter(Phase.CANDIDATE, now)
        if self.phase in (Phase.FOLLOWING, Phase.SUSPECTING):
            return
        if not self.leads:
            self._ask(now)
            self._stand(now)
        if now >= self._next_look and not self._asks_arbiter:
            self._asks_arbiter, self._asked = True, now
            seconds = self.settings.look_seconds
            self._next_look = now + seconds / (4 if self.phase is Phase.STEPPING_DOWN else 1)
            self._do(b.Look())

    def _ask(self, now: float) -> None:
        if self._others and now >= self._next_ask:
            self._next_ask = now + self.settings.ask_seconds
            self._do(b.AskAll(self._others))

    @property
    def _others(self) -> tuple[Launcher, ...]:
        return tuple(each for each in self.view if each.uid != self.me.uid)

    def _stand(self, now: float) -> None:
        """Take over, challenge or wait, as the answers and the record have it."""
        record = self._record
        fresh = record is not None and self._looked >= self._since
        if record is None or not fresh or self._asks_arbiter or not self.settings.may_stand:
            return
        ballot = self._ballot(now)
        if self._appointed or not record.holder:
            self._take_over(record, now)
        elif not (ballot.is_guest or self._is_blocked(now) or now < self._turn(ballot)):
            if ballot.may_swap or self._is_unanswered(record, now):
                self._take_over(record, now)
            elif self.phase is Phase.CANDIDATE and now >= self._challenge_after:
                self._challenge(record, now)

    def _ballot(self, now: float) -> Ballot:
        view = frozenset(each.uid for each in self.view)
        if self.leader is not None and self.leader.uid:
            view |= {self.leader.uid}
        return Ballot(self.me.uid, view, self._reached(now), self._gone)

    def _reached(self, now: float) -> frozenset[str]:
        limit = self.settings.heard_seconds
        return frozenset(uid for uid, (_, at) in self._answers.items() if now - at <= limit)

    def _is_blocked(self, now: float) -> bool:
        """Tell whether somebody is linked to the coordinator, and has not been for too long."""
        if not self._somebody_is_linked(now):
            self._blocked_since = None
            return False
        if self._blocked_since is None:
            self._blocked_since = now
        return now - self._blocked_since < self.settings.block_seconds

    def _somebody_is_linked(self, now: float) -> bool:
        told = [self._answers[uid][0].leader for uid in self._reached(now)]
        return any(leader is not None and leader.term >= self.term for leader in told)

    def _turn(self, ballot: Ballot) -> float:
        """Return when this launcher may stand: after an answer's time, lower slots first."""
        living = [
            each for each in self.view if each.uid in ballot.reached or (each.uid == self.me.uid)
        ]
        complete = ballot.view <= ballot.reached | ballot.gone | {self.me.uid}
        answers = 0.0 if complete else self.settings.ask_seconds
        return self._since + answers + self.settings.stagger_seconds * rank(living, self.me.uid)

    def _is_unanswered(self, record: Record, now: float) -> bool:
        """Tell whether a challenge has stood for long enough; end it if it was answered."""
        if self.phase is not Phase.CHALLENGING:
            return False
        if record.challenged:
            if not self._challenged:
                self._challenged, self._unanswered_since = True, now
        elif self._challenged:
            self._enter(Phase.CANDIDATE, now)
            self._challenge_after = now + self.settings.challenge_seconds
            return False
        else:
            self._challenge(record, now)
        waited = now - self._unanswered_since
        return self._challenged and waited >= self.settings.challenge_seconds

    def _is_leaderless(self, now: float) -> bool:
        """Tell whether nobody leads, as far as can be known without the arbiter."""
        stands = self.phase in (Phase.CANDIDATE, Phase.CHALLENGING) and self.leader is not None
        waited = now - self._since >= self.settings.heard_seconds
        over = self._finished or self._is_over
        led = self._is_linked or self._somebody_is_linked(now)
        return stands and waited and not (over or led)

    def _challenge(self, record: Record, now: float) -> None:
        self._enter(Phase.CHALLENGING, now)
        self._challenged, self._unanswered_since = record.challenged, now
        if not record.challenged:
            values = {**record.values, contract.RECORD_CHALLENGE: self.me.uid}
            self._swap(record, replace(record, values=values), now)

    def _take_over(self, record: Record, now: float) -> None:
        living = [each for each in self.view if each.uid not in self._gone]
        known = {each.uid: each for each in (*living, self.me)}
        values = {
            **_unchallenged(record),
            contract.RECORD_ADDRESS: self.me.address,
            contract.RECORD_LAUNCHERS: launchers_value(tuple(known.values())),
            contract.RECORD_MISSING: missing_value(self._outside(record)),
        }
        term = max(record.term, self.term) + 1
        self._swap(record, Record(holder=self.me.uid, term=term, values=values), now)

    def _swap(self, expected: Record, new: Record, now: float) -> None:
        self._asks_arbiter, self._asked = True, now
        self._do(b.Swap(expected, new))

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase, self._since = phase, now
        self._next_look = self._next_ask = now

    def _do(self, effect: b.Effect) -> None:
        self._effects.append(effect)


def _unchallenged(record: Record) -> dict[str, str]:
    """Return a record's entries without a challenge."""
    return {k: v for k, v in record.values.items() if k != contract.RECORD_CHALLENGE}
