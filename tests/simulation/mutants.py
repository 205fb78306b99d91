"""Deliberate protocol bugs. The simulator is worth something only if it catches each of them.

Every mutant is the real protocol with one part replaced by a subclass that breaks one rule. It
names the kinds of faults under which that shows, and a seed that caught it lately, where the
search begins.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from dssync.control.admission import Admission
from dssync.control.adoption import Electorate
from dssync.control.archive import Archive
from dssync.control.coordinator import Coordinator
from dssync.control.departures import Departures
from dssync.control.directory import Directory
from dssync.control.events import ControlSettings
from dssync.control.job import Job
from dssync.control.ledger import Ledger
from dssync.control.rounds import Rounds
from dssync.control.training import Training
from dssync.schedule import Settings
from simulation import mutantrounds as r, mutantterms as t
from simulation.profile import (
    ASKS,
    ECHOES,
    LEADERS,
    LONG,
    MEMBERS,
    MIXED,
    OUTAGES,
    PARTITIONS,
    STRICT,
    STRICT_LEADERS,
    Profile,
)
from simulation.run import Protocol, Simulation
from simulation.violation import CrashError, ViolationError

SEEDS = 2000


@dataclass(frozen=True)
class Mutant:
    """A broken protocol and where to look for it."""

    protocol: Callable[[], Protocol]
    profile: Profile = MEMBERS
    seed: int = 0
    """It was caught here lately."""


def protocol_with(
    *,
    admission: type[Admission] = Admission,
    departures: type[Departures] = Departures,
    training: type[Training] = Training,
    rounds: type[Rounds] = Rounds,
    directory: type[Directory] = Directory,
    ledger: type[Ledger] = Ledger,
    archive: type[Archive] = Archive,
    job: type[Job] = Job,
    coordinator: type[Coordinator] = Coordinator,
) -> Protocol:
    """Return the protocol with some parts of the coordinator replaced."""

    class Parts(job):  # type: ignore[valid-type, misc]
        def new_rounds(self, settings: Settings) -> Rounds:
            made: Rounds = super().new_rounds(settings)
            made.__class__ = rounds
            made._directory.__class__ = directory
            return made

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "ledger":
                value.__class__ = ledger
            super().__setattr__(name, value)

    class Mutated(coordinator):  # type: ignore[valid-type, misc]
        def __init__(
            self, term: int, settings: ControlSettings, electorate: Electorate | None = None
        ) -> None:
            super().__init__(term, settings, electorate)
            self.job.__class__ = Parts
            self.job.ledger = Ledger()
            self.archive = archive(self.job)
            self.departures = departures(self.job)
            self.admission = admission(self.job, self.departures)
            self.training = training(self.job, self.departures)

    return Protocol(coordinator=Mutated)


def _part(profile: Profile = MEMBERS, seed: int = 0, **parts: type) -> Mutant:
    return Mutant(lambda: protocol_with(**parts), profile, seed)  # type: ignore[arg-type]


def _whole(profile: Profile = MEMBERS, seed: int = 0, **machines: type) -> Mutant:
    return Mutant(lambda: Protocol(**machines), profile, seed)  # type: ignore[arg-type]


MUTANTS = MappingProxyType(
    {
        "freezes a round twice": _part(admission=r.FreezesTwice),
        "gives joiners weight": _part(admission=r.JoinerHasWeight),
        "starts joiners in a frozen round": _part(admission=r.StartsInFrozenRound),
        "uses broken communicators": _part(MEMBERS, 12, directory=r.ReusesBroken),
        "repeats communicator ids": _part(MEMBERS, 1, directory=r.RepeatsIds),
        "retries before all have answered": _part(MEMBERS, 43, rounds=r.RetriesEarly),
        "commits at the first confirmation": _part(STRICT, rounds=r.CommitsEarly),
        "tells of no earlier commits": _part(STRICT_LEADERS, 2, rounds=r.TellsNothingEarlier),
        "tells of the end too soon": _part(ECHOES, training=t.TellsTooSoon),
        "leaves those who were not told": _whole(MIXED, 17, election=t.LeavesTheUntold),
        "goes on after the end": _whole(ECHOES, 1, election=t.GoesOnAfterTheEnd),
        "lets a group grow": _part(MEMBERS, 29, rounds=r.Regrows),
        "blames members that are held up": _part(MEMBERS, 16, rounds=r.BlamesHeldMembers),
        "skips in a flush": _part(MEMBERS, 75, rounds=r.FlushSkips),
        "abandons one round of an entangled pair": _part(MEMBERS, 9, rounds=r.AbandonsAlone),
        "keeps weights in a retry": _part(MEMBERS, 1, rounds=r.KeepsWeights),
        "never feeds the hungry": _part(MEMBERS, 22, training=r.NeverFeeds),
        "loses leases": _part(MEMBERS, 1, ledger=r.KeepsLeases),
        "counts a batch twice": _part(MEMBERS, 17, ledger=r.CountsTwice),
        "flushes without a member": _part(training=r.FlushesOldView),
        "bears grudges": _part(LONG, 30, departures=r.BearsGrudges),
        "drains at once": _part(MEMBERS, 7, departures=r.DrainsAtOnce),
        "forgets frozen pods": _part(MEMBERS, 1064, coordinator=r.ForgetsFrozenPods),
        "believes accusers": _part(MEMBERS, 33, coordinator=r.BelievesAccusers),
        "applies after abandoning": _whole(MEMBERS, 1, member_state=r.AppliesAfterAbandon),
        "answers only for its round": _whole(member_state=r.AnswersOnlyNow),
        "trains before it counts": _whole(member_state=r.TrainsUnweighted),
        "stays in a skipped round": _whole(MEMBERS, 76, member_state=r.StaysInRound),
        "forgets messages on reconnect": _whole(MIXED, session=r.ForgetsMessages),
        "ignores who is linked": _whole(MEMBERS, 17, election=t.IgnoresTheLinked),
        "stands for election again": _whole(LONG, 8, election=t.StandsAgain),
        "needs no majority": _whole(MEMBERS, 45, election=t.NeedsNoMajority),
        "does not wait for the challenged": _whole(MEMBERS, 77, election=t.DoesNotWaitForAnswer),
        "answers no challenge": _whole(MEMBERS, 354, election=t.AnswersNoChallenge),
        "keeps the term": _whole(LEADERS, election=t.KeepsTheTerm),
        "leads without winning": _whole(LEADERS, election=t.LeadsWithoutWinning),
        "does not step down": _whole(PARTITIONS, 8, election=t.DoesNotStepDown),
        "takes silence of the arbiter for a no": _whole(OUTAGES, 4, election=t.ForgetsItsSwap),
        "hears of no coordinator": _whole(LEADERS, 2, election=t.HearsNoNews),
        "decides whoever is missing": _part(PARTITIONS, 1510, job=t.DecidesAnyway),
        "misses no silent launcher": _part(PARTITIONS, 278, departures=t.MissesNoSilent),
        "goes on after a stop": _part(ASKS, 1, training=r.IgnoresStops),
        "forgets a stop in a new term": _part(ASKS, 2, coordinator=t.ForgetsStops),
        "averages what some lack": _part(ASKS, job=r.AveragesAnything),
        "saves leases as done": _part(ASKS, archive=r.SavesLeasesAsDone),
        "publishes whoever is missing": _part(
            replace(PARTITIONS, asks=True), 34, archive=t.PublishesAnyway
        ),
        "stays resigned": _part(LEADERS, 4, coordinator=t.StaysResigned),
        "begins a term without reports": _part(LEADERS, 114, coordinator=t.AdoptsBeforeReports),
        "adopts everybody": _part(ECHOES, 134, coordinator=t.AdoptsEverybody),
        "drops decisions": _part(STRICT_LEADERS, 39, coordinator=t.DropsDecisions),
        "tells nobody who is out": _part(ECHOES, 1, departures=t.TellsNobodyWhoIsOut),
        "adopts after a pause": _part(STRICT_LEADERS, 324, coordinator=t.AdoptsAfterPause),
        "adopts nobody": _part(LEADERS, coordinator=t.AdoptsNobody),
        "commits what one has confirmed": _part(
            STRICT_LEADERS, 51, coordinator=t.CommitsWhatIsConfirmed
        ),
        "gives weight by adoption": _part(LEADERS, 3, coordinator=t.GivesWeightByAdoption),
        "repeats rounds of the last term": _part(LEADERS, coordinator=t.RepeatsRounds),
        "forgets commit records": _part(STRICT_LEADERS, 1, coordinator=t.ForgetsRecords),
        "leases again what is held": _part(LEADERS, 1, coordinator=t.ForgetsLeases),
        "ignores verdicts": _whole(STRICT_LEADERS, member_state=t.IgnoresVerdicts),
        "reports no votes": _whole(STRICT_LEADERS, 25, member_state=t.ReportsNoVotes),
        "discards its state on adoption": _whole(LEADERS, 5, member_state=t.DiscardsOnAdoption),
        "keeps no records": _whole(STRICT_LEADERS, 1, records=t.KeepsNoRecords),
        "reports records of a lost history": _whole(PARTITIONS, 886, records=t.KeepsOldRecords),
    }
)
"""Each makes a broken protocol that the simulator catches."""


def first_catch(mutant: Mutant, first: int, most: int = SEEDS) -> tuple[int | None, str]:
    """Return the first seed, from one on and round, that catches a mutant, and what it says.

    A mutant that crashes is caught by nobody: it may break no rule, and only lack an attribute.
    """
    protocol, crashed = mutant.protocol(), 0
    for number in range(most):
        seed = (first + number) % SEEDS
        try:
            Simulation(seed, protocol, profile=mutant.profile).run()
        except CrashError:
            crashed += 1
        except ViolationError as error:
            return seed, str(error)
    return None, f"not caught by {most} seeds, of which {crashed} crash"
