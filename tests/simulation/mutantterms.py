"""Deliberate bugs in elections, take-overs and the quorum: real parts with one rule broken each."""

import math
from dataclasses import replace as replaced

from msgspec.structs import replace

from dssync.control import ballots as b, messages as m
from dssync.control.adoption import Gathering
from dssync.control.archive import Archive
from dssync.control.ballots import Phase
from dssync.control.coordinator import Coordinator
from dssync.control.departures import Departures
from dssync.control.election import Election
from dssync.control.events import Paused
from dssync.control.job import Job
from dssync.control.member import MemberState
from dssync.control.peers import Ballot, Leader
from dssync.control.record import Record
from dssync.control.records import CommitRecords
from dssync.control.roster import Pod
from dssync.control.takeover import Adopt, Report
from dssync.control.training import Training

GRUDGE_SECONDS = 12.0
"""After which nothing of a fault is left."""

# --- elections --------------------------------------------------------------------------------


class TellsTooSoon(Training):
    """Members and launchers hear of the end before the record tells of it."""

    def complete(self) -> None:
        super().complete()
        self.recorded()


class IgnoresTheLinked(Election):
    """Who is linked to the coordinator blocks no candidate."""

    def _is_blocked(self, now: float) -> bool:
        return False


class StandsAgain(Election):
    """Who has lost the coordinator stands for election again when all has long been well."""

    _lost_seconds = math.inf
    _again = False

    def handle(self, event: b.Event, now: float) -> list[b.Effect]:
        effects = super().handle(event, now)
        if isinstance(event, b.LinkLost):
            self._lost_seconds = min(self._lost_seconds, now)
        is_due = self.phase is Phase.FOLLOWING and now - self._lost_seconds > GRUDGE_SECONDS
        if is_due and not self._again:
            self._again = True
            effects += super().handle(b.LinkLost(), now)
        return effects

    def _is_blocked(self, now: float) -> bool:
        return not self._again and super()._is_blocked(now)


class NeedsNoMajority(Election):
    """A candidate that reaches nobody takes over at once."""

    def _ballot(self, now: float) -> Ballot:
        ballot = super()._ballot(now)
        return replaced(ballot, gone=ballot.view)


class DoesNotWaitForAnswer(Election):
    """A challenge counts as unanswered as soon as it stands."""

    def _is_unanswered(self, record: Record, now: float) -> bool:
        return self.phase is Phase.CHALLENGING


class LeavesTheUntold(Election):
    """Who hears of the end from the coordinator stands no more, whoever waits to hear of it."""

    def _take(self, event: b.Event, now: float) -> None:
        super()._take(b.Finished() if isinstance(event, b.Finished) else event, now)


class GoesOnAfterTheEnd(Election):
    """A new coordinator does not heed that the record calls the job done."""

    def _do(self, effect: b.Effect) -> None:
        if isinstance(effect, b.Lead):
            effect = replaced(effect, electorate=replaced(effect.electorate, over=False))
        super()._do(effect)


class AnswersNoChallenge(Election):
    """The coordinator leaves challenges in the record."""

    def _keep(self, record: Record, now: float) -> None:
        self._do(b.Hold(record))


class KeepsTheTerm(Election):
    """A take-over does not raise the term."""

    def _swap(self, expected: Record, new: Record, now: float) -> None:
        super()._swap(expected, replaced(new, term=max(1, new.term - 1)), now)


class LeadsWithoutWinning(Election):
    """Who loses a swap coordinates all the same."""

    def handle(self, event: b.Event, now: float) -> list[b.Effect]:
        if event == b.Swapped(None) and self._record is not None and not self.leads:
            event = b.Swapped(replaced(self._record, holder=self.me.uid, term=self.term + 1))
        return super().handle(event, now)


class DoesNotStepDown(Election):
    """A coordinator that reads another holder goes on."""

    def _read(self, record: Record, now: float) -> None:
        if self.leads and record.holder != self.me.uid:
            record = replaced(record, holder=self.me.uid, term=self.term)
        super()._read(record, now)


class ForgetsItsSwap(Election):
    """A swap whose answer was lost counts as lost, too."""

    def _lead(self, record: Record, now: float) -> None:
        if self._asked_in_vain:
            self._follow(Leader(record.term, record.holder, self.me.address), now)
        else:
            super()._lead(record, now)

    _asked_in_vain = False

    def handle(self, event: b.Event, now: float) -> list[b.Effect]:
        self._asked_in_vain = self._asked_in_vain or isinstance(event, b.ArbiterFailed)
        return super().handle(event, now)


class HearsNoNews(Election):
    """Neither record nor launchers tell of a coordinator of a later term."""

    def _heard(self, leader: Leader, now: float) -> None:
        pass

    def _read(self, record: Record, now: float) -> None:
        if self.leads or record.holder in ("", self.me.uid) or self.leader is None:
            super()._read(record, now)
        else:
            self._record, self._looked = record, now


# --- the quorum -------------------------------------------------------------------------------


class DecidesAnyway(Job):
    """Rounds are frozen and committed whoever is missing."""

    def may_decide(self, now: float) -> bool:
        return True


class PublishesAnyway(Archive):
    """Checkpoints are published whoever is missing."""

    def _is_due(self, asked: tuple[str, int, float, int], now: float) -> bool:
        return True


class MissesNoSilent(Departures):
    """A launcher whose lease is over, but whose connection stands, is not missing."""

    def miss(self, pod: Pod, now: float) -> None:
        if pod.lost_seconds is not None:
            super().miss(pod, now)


class StaysResigned(Coordinator):
    """A coordinator whom nobody succeeds freezes nothing any more."""

    @property
    def idle(self) -> bool:
        self.job.settings = replaced(self.job.settings, minimum=99)
        return super().idle


# --- a new term -------------------------------------------------------------------------------


class AdoptsBeforeReports(Coordinator):
    """The first view of a term holds those who have reported when the coordinator first looks."""

    def _gather(self, gathering: Gathering, event: object, now: float) -> None:
        gathering.began_seconds = -10.0
        super()._gather(gathering, event, now)  # type: ignore[arg-type]


class AdoptsAfterPause(Coordinator):
    """A coordinator that stood still while reports came in begins its term on what they said."""

    def _gather(self, gathering: Gathering, event: object, now: float) -> None:
        if isinstance(event, Paused):
            self._deferred.append(event)
        else:
            super()._gather(gathering, event, now)  # type: ignore[arg-type]


class _Rereads(Coordinator):
    """Takes reports for what they are not."""

    def _begin_term(self, gathering: Gathering, now: float) -> None:
        for key, report in gathering.reports.items():
            gathering.reports[key] = self._misread(report)
        for slot, standing in gathering.standings.items():
            gathering.standings[slot] = replace(standing, ledger=self._misjudge(standing.ledger))
        super()._begin_term(gathering, now)

    def _misread(self, report: Report) -> Report:
        return report

    def _misjudge(self, ledger: m.LedgerReport) -> m.LedgerReport:
        return ledger


class AdoptsEverybody(_Rereads):
    """A member of any earlier term goes on."""

    def _misread(self, report: Report) -> Report:
        return replace(report, member_since=min(1, report.member_since))


class AdoptsNobody(_Rereads):
    """Every member of an earlier term enters again."""

    def _misread(self, report: Report) -> Report:
        return replace(report, started=False)


class DropsDecisions(_Rereads):
    """An attempt that a mate has applied is dropped for the others."""

    def _misread(self, report: Report) -> Report:
        return replace(report, votes=())


class CommitsWhatIsConfirmed(_Rereads):
    """An attempt that one survivor has confirmed is committed."""

    def _misread(self, report: Report) -> Report:
        return replace(report, votes=tuple(replace(v, decided=True) for v in report.votes))


class GivesWeightByAdoption(_Rereads):
    """A joiner's values count from its adoption on."""

    def _misread(self, report: Report) -> Report:
        return replace(report, weighted=True)


class RepeatsRounds(_Rereads):
    """The first round of a term is one that members have left behind."""

    def _misread(self, report: Report) -> Report:
        return replace(report, known_round=-1, next_round=max(0, report.next_round - 3))


class ForgetsRecords(_Rereads):
    """What launchers know beyond the ledger is not counted."""

    def _misjudge(self, ledger: m.LedgerReport) -> m.LedgerReport:
        return replace(ledger, committed=())


class ForgetsLeases(_Rereads):
    """What members hold is leased again."""

    def _misjudge(self, ledger: m.LedgerReport) -> m.LedgerReport:
        return replace(ledger, held=())


class ForgetsStops(_Rereads):
    """Who has asked for an early end has to ask each coordinator."""

    def _misread(self, report: Report) -> Report:
        return replace(report, stop_asked=False)


class TellsNobodyWhoIsOut(Departures):
    """Launchers do not hear who was put out."""

    def bench(self, key: str, cause: str, now: float) -> None:
        super().bench(key, cause, now)
        self._job.put_out.clear()


class IgnoresVerdicts(MemberState):
    """A member drops what it has open at a new term, also what is committed."""

    def _adopt(self, adopt: Adopt) -> None:
        super()._adopt(replace(adopt, commits=()))


class ReportsNoVotes(MemberState):
    """A member does not say what it has confirmed and applied."""

    def _report(self) -> Report:
        return replace(super()._report(), votes=())


class DiscardsOnAdoption(MemberState):
    """A member starts anew under every new term."""

    def _adopt(self, adopt: Adopt) -> None:
        super()._adopt(adopt)
        self.benched = "a new term"


class KeepsOldRecords(CommitRecords):
    """Commit records of a history that was given up are reported to later terms."""

    def _settle(self) -> None:
        self._term = self._next_term


class KeepsNoRecords(CommitRecords):
    """Launchers keep no commit records."""

    def _commit(self, key: str, batches: tuple[int, ...]) -> None:
        self._held.setdefault(key, set()).difference_update(batches)
