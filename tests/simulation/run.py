"""One run: launchers, arbiter, workers and faults, from a seed to the end of the job."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.adoption import Electorate
from dssync.control.ballots import ElectionSettings
from dssync.control.coordinator import Coordinator
from dssync.control.deadline import DeadlineSettings
from dssync.control.election import Election
from dssync.control.events import ControlSettings
from dssync.control.member import MemberState
from dssync.control.record import Record
from dssync.control.records import CommitRecords
from dssync.control.session import Session
from dssync.errors import ProtocolError
from simulation.arbiter import Cell
from simulation.asks import asks_of
from simulation.cluster import Operator
from simulation.coverage import Coverage
from simulation.fabric import Fabric
from simulation.faults import FEWEST_EVENTS, FEWEST_FAULTS, Faults
from simulation.marks import DEADLINE_SECONDS
from simulation.monitor import Monitor
from simulation.network import HEAL_SECONDS, Network
from simulation.observer import Observer
from simulation.pod import Pod
from simulation.profile import MIXED, Profile
from simulation.scheduler import Scheduler
from simulation.spec import Spec
from simulation.transfer import Transfers
from simulation.violation import CrashError, ViolationError, require
from simulation.wire import Parcels
from simulation.worker import Job, Worker

QUIET_SECONDS = 60.0
"""Without progress for this long after the last fault, a run counts as stuck."""
MOST_SECONDS = 900.0
MOST_EVENTS = 10_000
"""After the last fault is over."""
FEWEST = {"members": 8, "events": FEWEST_EVENTS, "faults": FEWEST_FAULTS}
"""What a run has at least; one that has less shows nothing."""


@dataclass(frozen=True)
class Protocol:
    """The state machines under test; mutants replace them."""

    coordinator: type[Coordinator] = Coordinator
    member_state: type[MemberState] = MemberState
    session: type[Session] = Session
    election: type[Election] = Election
    records: type[CommitRecords] = CommitRecords


@dataclass(frozen=True)
class Outcome:
    """What a run was."""

    seed: int
    events: int
    faults: int
    """That changed anything before the job's end."""
    members: int
    terms: int
    seconds: float
    """Virtual."""
    rounds_applied: int
    digest: str
    """Of the whole trace: equal for equal runs."""

    @property
    def lacks(self) -> str:
        """What it has too few of; empty if nothing."""
        counts = {what: getattr(self, what) for what in FEWEST}
        few = [what for what, fewest in FEWEST.items() if counts[what] < fewest]
        return ", ".join(f"{counts[what]} {what} of {FEWEST[what]}" for what in few)


class Simulation:
    """Everything of one seed."""

    def __init__(
        self,
        seed: int,
        protocol: Protocol | None = None,
        trace: Callable[[str], None] | None = None,
        *,
        profile: Profile = MIXED,
        omitted: frozenset[int] = frozenset(),
    ) -> None:
        """Prepare a run.

        Args:
            seed: everything follows from it.
            protocol: the real one, unless given.
            trace: called with every message of a member and every event of an election.
            profile: which faults are drawn how often.
            omitted: numbers of faults to leave out, to shrink a failing run.
        """
        self.protocol = protocol or Protocol()
        self.seed = seed
        self.scheduler = Scheduler(seed)
        self.random = self.scheduler.random
        self.coverage = Coverage()
        shape = _shape(self.random)
        self.first_members = sum(shape)
        self._settings = _settings(len(shape), profile.floor_seconds)
        self.election_settings = ElectionSettings(look_seconds=self.random.choice((0.3, 1.0)))
        self.network = Network(self.scheduler)
        self.parcels = Parcels()
        self.cell = Cell(self.scheduler, len(shape), 1)
        self.observer = Observer(
            self.coverage, self.cell, self._follows, lambda: self.scheduler.now, trace
        )
        self.observer.leads_on = self._leads_on
        self.observer.is_healing = self._is_healing
        self.asks = asks_of(seed, profile)
        sync = replace(
            _sync(self.random, profile.commit), average_optimizer_state=self.asks.averages
        )
        self.job = Job(
            scheduler=self.scheduler,
            fabric=Fabric(self.scheduler),
            sync=sync,
            batches=(self.random.randint(*BATCHES), profile.epochs),
            transfer=Transfers(self).begin,
            observer=self.observer,
            member_state=self.protocol.member_state,
            restarts=self.random.random() < 0.6,
            pace=profile.pace,
            saves=self.asks.saves,
        )
        self.pods: list[Pod] = []
        self._incarnations = 0
        self._slots = 0
        self._sessions = 0
        self.operator = Operator(self)
        self.faults = Faults(self, profile, omitted)
        for workers in shape:
            self.add_pod(workers)

    # --- what pods use ------------------------------------------------------------------------

    def new_session(self) -> Session:
        return self.protocol.session()

    def new_name(self) -> int:
        """Return a name for a session."""
        self._sessions += 1
        return self._sessions

    def new_coordinator(
        self, record: Record, electorate: Electorate, pod: Pod
    ) -> tuple[Coordinator, Monitor]:
        """Return the coordinator of a new term, and who watches it."""
        self.observer.leads(pod.uid, record.term)
        coordinator = self.protocol.coordinator(record.term, self._settings, electorate)
        strict = self.job.sync.commit == "strict"
        monitor = Monitor(coordinator, self.observer, is_strict=strict)
        self.observer.monitors[record.term] = monitor
        return coordinator, monitor

    def new_key(self, slot: int, local_rank: int) -> str:
        self._incarnations += 1
        return f"{slot}.{local_rank}.{self._incarnations:032x}"

    def has_ended(self, uid: str) -> bool:
        """Tell whether a launcher knows that another one has ended, as on one machine it does."""
        pod = self.pod(uid)
        return self.operator.is_local and pod is not None and not pod.alive

    # --- pods and workers ---------------------------------------------------------------------

    def add_pod(self, workers: int, slot: int | None = None, import_seconds: float = 0.0) -> Pod:
        """Start a pod, in a new slot or as a replacement."""
        if slot is None:
            slot, self._slots = self._slots, self._slots + 1
        self._incarnations += 1
        place = ("", f"rack{slot % 2}", f"node{slot}")
        rate = self.random.choice((1.0, 1.0, 0.97, 1.03))
        spec = Spec(slot, f"pod{self._incarnations}", workers, place, rate, import_seconds)
        pod = Pod(self, spec)
        pod.on_end = lambda: self.operator.ended(pod)
        self.pods.append(pod)
        return pod

    def pod(self, uid: str) -> Pod | None:
        found = self.network.hosts.get(uid)
        return found if isinstance(found, Pod) else None

    @property
    def live_pods(self) -> list[Pod]:
        return [pod for pod in self.pods if pod.alive]

    def _follows(self, slot: int, term: int) -> bool:
        """Tell whether a launcher is linked to the coordinator of a term in another one."""
        return any(pod.follows(term) for pod in self.pods if pod.alive and pod.spec.slot == slot)

    def _is_healing(self, uid: str) -> bool:
        """Tell whether old news may still reach a launcher, after a cut or after its own freeze.

        What waited for one that stood still looks as new to it as what waited for a way.
        """
        pod, now = self.pod(uid), self.scheduler.now
        thawed = pod is not None and now - pod.thawed_seconds < HEAL_SECONDS
        return thawed or self.network.is_healing()

    def _leads_on(self, uid: str) -> bool:
        pod = self.pod(uid)
        return pod is not None and pod.alive and pod.hub is not None and not pod.gives_way

    @property
    def leader(self) -> Pod | None:
        """The pod that coordinates, as the arbiter has it."""
        pod = self.pod(self.cell.record.holder)
        return pod if pod is not None and pod.alive and pod.hub is not None else None

    @property
    def workers(self) -> list[Worker]:
        """Living worker processes."""
        return [w for pod in self.pods if pod.alive for w in pod.workers if w.alive]

    def find(self, key: str) -> Worker | None:
        return next((worker for worker in self.workers if worker.key == key), None)

    @property
    def completed(self) -> bool:
        """Whether the job is done, as the record or a coordinator tells."""
        return self.observer.completed

    # --- the run ------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run to the end of the job and check what holds there.

        Raises:
            ViolationError: an invariant does not hold, or the run is stuck.
        """
        try:
            return self._run()
        except ProtocolError as error:
            raise ViolationError(f"one side of the protocol refuses the other: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise CrashError(f"a state machine ends with {error!r}") from error

    def _run(self) -> Outcome:
        observer, scheduler, faults = self.observer, self.scheduler, self.faults
        quiet_since, seen, calm = 0.0, 0, 0
        while not (observer.completed and not self.live_pods):
            scheduler.step()
            observer.now = scheduler.now
            if observer.events == seen:
                if scheduler.now - quiet_since > QUIET_SECONDS and not faults.active:
                    self._stuck("stuck")
                continue
            seen = observer.events
            faults.look()
            if observer.progressed or faults.active:
                observer.progressed, quiet_since = False, scheduler.now
            # While the arbiter is away, candidates ask each other again and again.
            calm = seen if faults.active else calm
            if scheduler.now > MOST_SECONDS or seen - calm > MOST_EVENTS:
                self._stuck("endless")
        self._check_end()
        return Outcome(
            self.seed, seen, faults.injected, self.first_members, len(observer.monitors),
            scheduler.now, observer.applied_count, f"{observer.digest:08x}",
        )  # fmt: skip

    def _stuck(self, how: str) -> None:
        workers = "; ".join(f"{w.key[:4]} {w.phase} {w.state.next_round}" for w in self.workers)
        pods = "; ".join(f"{p.uid} {p.election_phase}" for p in self.live_pods)
        raise ViolationError(f"{how} at {self.scheduler.now:.1f} s: {pods}; {workers}")

    def _check_end(self) -> None:
        """Every batch is committed, and all end with the same values."""
        final = self.observer.monitors[self.observer.ended_term]
        ledger = final.coordinator.ledger
        total = math.prod(self.job.batches)
        done = ledger.committed == total or self.faults.stop.asked
        require(done, f"{ledger.committed} of {total} batches are committed")
        observer = self.observer
        touched, since = observer.touched, observer.final_seconds
        if all(k in observer.drained or touched.is_hit_since(k, since) for k in observer.finalists):
            return  # Faults and drains may have taken everybody who held the final state.
        stayed = [w for w in self.job.finished if w.state.started and w.state.last_round is None]
        without = [w.key for w in stayed if not w.final_state]
        require(not without, f"{without} end without the final state")
        values = [w.training.values for w in self.job.finished if w.final_state]
        require(bool(values), "nobody ends with the final state")
        off = max(abs(a - b) for each in values for a, b in zip(each, values[0], strict=True))
        require(off < 1e-9, f"members end with parameters that differ by {off}")


BATCHES = (60, 72)
"""In an epoch, at least and at most."""


def _shape(rng: random.Random) -> list[int]:
    """Return the workers of each first pod: 8 to 12 members in 3 to 6 pods."""
    pods = rng.randint(3, 6)
    workers = [1] * pods
    for _ in range(rng.randint(8, 12) - pods):
        workers[rng.randrange(pods)] += 1
    return workers


def _settings(pods: int, floor_seconds: float) -> ControlSettings:
    return ControlSettings(
        desired=pods,
        minimum=1,
        join_window_seconds=2.0,
        deadline=DeadlineSettings(
            warmup_rounds=3,
            warmup_seconds=DEADLINE_SECONDS,
            floor_seconds=floor_seconds,
            reply_seconds=0.5,
        ),
    )


def _sync(rng: random.Random, commit: str) -> m.SyncSettings:
    return m.SyncSettings(
        mode=rng.choice(("grid", "grid", "pool", "cross", "allreduce")),
        group_size=rng.choice((2, 3, 4)),
        every=1,
        commit=commit or rng.choice(("relaxed", "strict")),
        seed=rng.randrange(1000),
    )
