"""How a new coordinator comes to know its job: reports in, a first view out.

The members that report in time go on in place, in a view of the new term and above every round
that anybody knows. Nothing of an earlier term stays open: a member drops what it has under way,
as if the round had been skipped, but for a strict attempt that its mates have applied or all of
them have confirmed; that one is committed.
"""

import contextlib
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.events import Note
from dssync.control.inheritance import Known, joined, newest_of, put_out_by, without
from dssync.control.job import Job, World
from dssync.control.ledger import Ledger
from dssync.control.roster import Peer, Phase
from dssync.control.takeover import Adopt, Launcher, Report, Verdict, Vote
from dssync.control.view import Member, View, slot_of
from dssync.errors import ProtocolError
from dssync.schedule import Layout, Settings

REPORT_SECONDS = 0.3
"""Launchers that could not be asked have this long to report."""
PROBE_SECONDS = 1.0
"""Launchers that were there when asked, and their members, have this long."""


@dataclass(frozen=True)
class Electorate:
    """Whom a new coordinator waits for, by pod uid."""

    expected: frozenset[str] = frozenset()
    """The launchers of the last view that are not confirmed gone."""
    reached: frozenset[str] = frozenset()
    """Those that have answered the candidate."""
    over: bool = False
    """The record says that the job is done."""
    launchers: tuple[Launcher, ...] = ()
    """Who may have followed another coordinator: the launchers of the last view, and those that
    were missing from it, but for those that have ended for certain."""


@dataclass
class Gathering:
    """The reports of a term that has just begun."""

    electorate: Electorate
    began_seconds: float | None = None
    """When the coordinator began to listen."""
    standings: dict[int, m.Standing] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    """Members whose reports an earlier view of the term was decided on."""

    def reopen(self, uid: str) -> None:
        """Wait for one more launcher."""
        self.electorate = Electorate(frozenset({uid}), frozenset({uid}), self.electorate.over)
        self.began_seconds = None

    @property
    def listed(self) -> dict[str, Report]:
        """The reports of members that their launchers list: of no earlier life of a pod."""
        members = {key for standing in self.standings.values() for key in standing.members}
        return {key: report for key, report in self.reports.items() if key in members}

    def ledgers(self, term: int) -> list[m.LedgerReport]:
        """Return what launchers know of the data in the history of a term.

        That is, not what they know of another side, or of the time before the data began to count
        anew.
        """
        found = [s.ledger for s in self.standings.values() if s.ledger.term >= term]
        last: dict[int, int] = {}
        for each in found:
            last[each.term] = max(each.restarts, last.get(each.term, 0))
        return [each for each in found if each.restarts == last[each.term]]

    def complete(self, uids: Mapping[int, str], now: float) -> bool:
        """Tell whether nobody is to be waited for any longer.

        Args:
            uids: of the connected launchers, by slot.
            now: the time.
        """
        self.began_seconds = now if self.began_seconds is None else self.began_seconds
        passed = now - self.began_seconds
        found = ((uids.get(slot), each) for slot, each in self.standings.items())
        inside = {uid for uid, each in found if uid is not None and self._is_in(each)}
        if passed >= PROBE_SECONDS or inside >= self.electorate.expected:
            return True
        return passed >= REPORT_SECONDS and inside >= self.electorate.reached

    def _is_in(self, standing: m.Standing) -> bool:
        return self.reports.keys() >= set(standing.members)


def adopt(job: Job, gathering: Gathering) -> bool:
    """Rebuild a job from the reports of its members; tell whether its final flush is committed."""
    everybody = gathering.listed
    present = {key: r for key, r in everybody.items() if r.enter and not r.completed}
    latest = max((r.member_since for r in present.values() if r.started), default=0)
    reports = {key: r for key, r in present.items() if key not in gathering.settled}
    gathering.settled |= reports.keys()
    ledgers, over = gathering.ledgers(latest), gathering.electorate.over
    put_out = put_out_by(ledgers)
    elsewhere = {key for key, r in present.items() if r.started and r.member_since != latest}
    ledgers = [without(each, put_out | elsewhere) for each in ledgers]
    newest = newest_of(ledgers)
    known = Known(ledgers, newest)
    candidates = {
        # Of the latest history, and not put out; after the end, only with the last values.
        key: r
        for key, r in reports.items()
        if r.started and r.member_since == latest and key not in put_out
        if not over or _has_applied_the_final(r)
    }
    stale = _stale(ledgers, candidates, known)
    adopted = {key: r for key, r in candidates.items() if key not in stale}
    commits = {key: verdicts(key, adopted, known) for key in adopted}
    job.ledger = joined(ledgers, newest or _registered(gathering), adopted, commits)
    dropped = {key for key, r in reports.items() if r.started and key not in adopted}
    here = reports.keys() - dropped  # Also who has entered again and was not let in yet.
    job.put_out = {key: uid for key, uid in job.put_out.items() if key not in here}
    if not over:
        _note_put_out(job, dropped | (put_out - here), gathering.electorate.launchers)
    job.publish()  # Before members hear what is committed with them.
    for key, report in reports.items():
        job.roster.add(key, _peer(key, report, adopted))
    job.lost_world = None
    if adopted:
        _continue(job, adopted, commits, _next_round(everybody))
    elif job.ledger.total or any(r.known_round >= 0 for r in everybody.values()):
        # Nobody goes on, but there was training: its numbers continue, its data count anew.
        job.lost_world = _lost(job, _next_round(everybody))
    for key in sorted(dropped):
        job.roster.remove(key)
        job.roster.benched.add(key)
        job.outbox.tell(key, m.Bench("its rounds are not those of the new term"))
    _ask_again(job, reports)
    counts = f"adopted={len(adopted)} entering={len(job.roster.in_phase(Phase.ENTERED))}"
    job.outbox.note(Note("adopted", counts=counts))
    job.recorded = over
    return over or any(r.completed for r in everybody.values()) or _final(adopted, commits)


def read_report(body: str) -> Report:
    """Return the report in a member's message.

    Raises:
        ProtocolError: it is none, or no member reports such a thing.
    """
    report = m.MEMBER.decode(body)
    if not isinstance(report, Report):
        raise ProtocolError(f"a member reports {body[:200]}: expected where it stands")
    if report.enter:
        hello_of(report)
    for said, kind in ((report.register, m.Register), *((take, m.Take) for take in report.takes)):
        if said and not isinstance(m.MEMBER.decode(said), kind):
            raise ProtocolError(f"a member reports to have said {said[:80]!r}")
    return report


def hello_of(report: Report) -> m.Enter:
    """Return what a member has entered with.

    Raises:
        ProtocolError: it is no hello.
    """
    hello = m.MEMBER.decode(report.enter)
    if not (isinstance(hello, m.Enter) and hello.sync.is_schedule):
        raise ProtocolError(f"a member reports to have entered with {report.enter[:80]!r}")
    return hello


def verdicts(key: str, adopted: Mapping[str, Report], done: Container[int]) -> tuple[Verdict, ...]:
    """Return the attempts of ``key`` that are committed though it has not applied them.

    An attempt is committed if anybody applied it or was told to, or if a copy of the ledger
    counts its batches. Else it is committed if its whole group is here and has confirmed it:
    then nobody was told to abandon it, and what each of them consumed is known. An attempt of a
    member that was lost with its batches is given up; no survivor has applied it.
    """
    report = adopted[key]
    votes = [v for v in report.votes if v.round >= report.next_round]
    return tuple(
        Verdict(v.round, v.attempt, v.batches) for v in votes if _commits(v, adopted, done)
    )


def _commits(vote: Vote, adopted: Mapping[str, Report], done: Container[int]) -> bool:
    concerned = [mate for mate in adopted if _concerned(mate, vote, adopted[mate])]
    known = [_vote_of(adopted[mate], vote) for mate in concerned]
    votes = [each for each in known if each is not None]
    if any(each.decided or _is_counted(each, done) for each in votes):
        return True
    group = {mate for each in votes for mate in each.mates}
    return len(votes) == len(known) and adopted.keys() >= group


def _is_counted(vote: Vote, done: Container[int]) -> bool:
    """Tell whether what a confirmation commits is committed: the decision was to commit it."""
    return bool(vote.batches) and all(batch in done for batch in vote.batches)


def _concerned(mate: str, vote: Vote, report: Report) -> bool:
    """Tell whether a survivor took part in the attempt of a vote."""
    if vote.kind == "train":
        return mate in vote.mates
    if _vote_of(report, vote) is not None:
        return True
    # A flush has one group: everybody whose turn it was.
    stays = report.last_round is None or report.last_round >= vote.round
    return report.next_round <= vote.round and stays


def _vote_of(report: Report, vote: Vote) -> Vote | None:
    same = [v for v in report.votes if (v.round, v.attempt) == (vote.round, vote.attempt)]
    return same[0] if same else None


def _stale(
    ledgers: Sequence[m.LedgerReport], candidates: Mapping[str, Report], done: Container[int]
) -> set[str]:
    """Return who holds batches that are committed, or that somebody else holds as well.

    The last coordinator had put such a member out, without anybody's knowing, and leased its
    batches again. What it has trained on them must not count a second time. What a member has
    confirmed is its own: it only lacks the decision. Batches of provisional rounds prove no such
    thing.
    """
    held = [
        (each.member, batch)
        for ledger in ledgers
        for each in ledger.held
        for batch in set(each.batches) - {*ledger.provisional}
        if each.member in candidates
    ]
    holders = Counter(batch for _, batch in held)
    return {
        key
        for key, batch in held
        if holders[batch] > 1 or (batch in done and batch not in _confirmed(candidates[key]))
    }


def _confirmed(report: Report) -> set[int]:
    """Return the batches that a member has confirmed and not heard a decision about."""
    return {batch for vote in report.votes for batch in vote.batches}


def _registered(gathering: Gathering) -> m.LedgerState | None:
    """Return the ledger of a run of which nothing is known to be done."""
    for report in gathering.listed.values():
        said = m.MEMBER.decode(report.register) if report.register else None
        if isinstance(said, m.Register):
            fresh = Ledger()
            with contextlib.suppress(ProtocolError):  # Others may state a size.
                fresh.register(said.tracks, said.epochs)
                return fresh.state
    return None


def _note_put_out(job: Job, keys: set[str], launchers: Sequence[Launcher]) -> None:
    """Let this term's copies of the ledger say who is out, in case the next one follows soon."""
    uids = {each.slot: each.uid for each in launchers}
    uids |= {slot: pod.uid for slot, pod in job.roster.pods.items()}
    for key in sorted(keys - job.roster.peers.keys()):
        if slot_of(key) in uids:
            job.put_out[key] = uids[slot_of(key)]


def _next_round(reports: Mapping[str, Report]) -> int:
    known = (max(r.known_round + 1, r.next_round) for r in reports.values())
    return max(known, default=0)


def _peer(key: str, report: Report, adopted: Mapping[str, Report]) -> Peer:
    peer = Peer.of(key, replace(hello_of(report), applied_round=report.applied_round))
    peer.moments = report.moments
    if key in adopted:
        peer.phase = Phase.ACTIVE
    elif report.donor in adopted and not report.started:
        peer.phase = Phase.LOADED
    return peer


def _continue(
    job: Job,
    adopted: Mapping[str, Report],
    commits: Mapping[str, tuple[Verdict, ...]],
    next_round: int,
) -> None:
    """Put the adopted members into the first view of the term."""
    sync = job.roster.peers[next(iter(adopted))].sync
    rounds = job.new_rounds(Settings(sync.mode, sync.group_size, sync.seed))
    rounds.next_round = next_round
    unweighted = frozenset(key for key, report in adopted.items() if not report.weighted)
    layout = Layout.of((key, job.roster.place_of(key)) for key in sorted(adopted, key=Member.parse))
    view = View(job.term, 1, layout, unweighted)
    job.world = World(view, rounds, sync.commit == "strict", next_round - 1)
    job.world.flush_asked = any(report.flush_asked for report in adopted.values())
    job.world.stop_asked = any(report.stop_asked for report in adopted.values())
    for position, key in enumerate(view.members):
        weighted = key not in unweighted
        job.outbox.tell(key, Adopt(next_round, position, weighted, commits[key]))


def _lost(job: Job, next_round: int) -> World:
    """Return what goes on of a world that nobody in it has come back from: its numbers."""
    rounds = job.new_rounds(Settings())
    rounds.next_round = next_round
    return World(View(job.term, 0, Layout(), frozenset()), rounds, False)


def _ask_again(job: Job, reports: Mapping[str, Report]) -> None:
    """Take up what members had asked the last coordinator for."""
    for key, report in reports.items():
        if key in job.roster.peers:
            takes = [m.MEMBER.decode(each) for each in report.takes]
            hungry = {take.track: take for take in takes if isinstance(take, m.Take)}
            job.roster.peers[key].hungry = hungry


def _has_applied_the_final(report: Report) -> bool:
    return any(vote.kind == "final" and vote.decided for vote in report.votes)


def _final(adopted: Mapping[str, Report], commits: Mapping[str, tuple[Verdict, ...]]) -> bool:
    """Tell whether the final flush is committed."""
    finals = {
        (vote.round, vote.attempt): vote.decided
        for report in adopted.values()
        for vote in report.votes
        if vote.kind == "final"
    }
    told = {(each.round, each.attempt) for some in commits.values() for each in some}
    return any(decided or name in told for name, decided in finals.items())
