"""One run: pods, coordinator and faults, from a seed to the end of the job."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from dssync.control import messages as m
from dssync.control.adoption import Electorate
from dssync.control.coordinator import Coordinator
from dssync.control.deadline import DeadlineSettings
from dssync.control.events import ControlSettings
from dssync.control.member import MemberState
from dssync.control.session import Session
from dssync.errors import ProtocolError
from simulation.coverage import Coverage
from simulation.fabric import Fabric
from simulation.faults import Faults
from simulation.monitor import Monitor
from simulation.network import Hub
from simulation.pod import Pod, Spec
from simulation.scheduler import Scheduler
from simulation.violation import ViolationError, require
from simulation.worker import Job, Worker

EPOCHS = 2
QUIET_SECONDS = 60.0
"""Without progress for this long after the last fault, a run counts as stuck."""
MOST_SECONDS = 900.0
MOST_EVENTS = 10_000
TRANSFER_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True)
class Protocol:
    """The state machines under test; mutants replace them."""

    coordinator: type[Coordinator] = Coordinator
    member_state: type[MemberState] = MemberState
    session: type[Session] = Session


@dataclass(frozen=True)
class Outcome:
    """What a run was."""

    seed: int
    events: int
    faults: int
    members: int
    seconds: float
    """Virtual."""
    rounds_applied: int
    digest: str
    """Of the whole trace: equal for equal runs."""


class Simulation:
    """Everything of one seed."""

    def __init__(
        self,
        seed: int,
        protocol: Protocol | None = None,
        trace: Callable[[str], None] | None = None,
        *,
        takeovers: bool = False,
    ) -> None:
        """Prepare a run.

        Args:
            seed: everything follows from it.
            protocol: the real one, unless given.
            trace: called with every message of a member that the coordinator hears.
            takeovers: whether the coordinator may be lost and replaced, too.
        """
        self.takeovers = takeovers
        protocol = protocol or Protocol()
        self.seed = seed
        self._trace = trace
        self.scheduler = Scheduler(seed)
        self.random = self.scheduler.random
        self.coverage = Coverage()
        shape = _shape(self.random)
        settings = ControlSettings(
            desired=len(shape),
            minimum=1,
            join_window_seconds=2.0,
            any_side=True,
            deadline=DeadlineSettings(warmup_rounds=3, warmup_seconds=3.0, reply_seconds=0.5),
        )
        self._protocol, self._settings = protocol, settings
        coordinator = protocol.coordinator(1, settings)
        self.monitor = Monitor(coordinator, self.coverage)
        self.hub = Hub(self.scheduler, coordinator, self.monitor, protocol.session)
        self.fabric = Fabric(self.scheduler)
        self.job = Job(
            scheduler=self.scheduler,
            fabric=self.fabric,
            sync=_sync(self.random),
            batches=(self.random.randint(100, 120), EPOCHS),
            transfer=self._transfer,
            on_attempt=self.monitor.values.begun,
            on_apply=self.monitor.values.applied,
            member_state=protocol.member_state,
            restarts=self.random.random() < 0.6,
        )
        self.pods: list[Pod] = []
        self._incarnations = 0
        self._slots = 0
        for workers in shape:
            self.add_pod(workers)
        self.first_members = sum(shape)
        self.faults = Faults(self)

    # --- the coordinator ----------------------------------------------------------------------

    @property
    def coordinator(self) -> Coordinator:
        return self.hub.coordinator

    def lose_coordinator(self, seconds: float) -> None:
        """Lose the coordinator; another one begins after some time, with what it hears."""
        term = self.coordinator.job.term + 1
        self.hub.lose()
        for pod in self.live_pods:
            pod.cut(seconds + self.random.uniform(0.0, 0.2))

        def begin() -> None:
            expected = frozenset(pod.spec.uid for pod in self.live_pods)
            reached = frozenset(pod.spec.uid for pod in self.live_pods if not pod.frozen)
            electorate = Electorate(expected, reached)
            coordinator = self._protocol.coordinator(term, self._settings, electorate)
            self.monitor.take_over(coordinator)
            self.hub.take_over(coordinator)

        self.scheduler.later(seconds, begin)

    # --- pods and workers ---------------------------------------------------------------------

    def add_pod(self, workers: int, slot: int | None = None) -> Pod:
        """Start a pod, in a new slot or as a replacement."""
        if slot is None:
            slot, self._slots = self._slots, self._slots + 1
        self._incarnations += 1
        place = ("", f"rack{slot % 2}", f"node{slot}")
        spec = Spec(slot, f"pod{self._incarnations}", workers, place)
        pod = Pod(self.job, spec, self.hub, self._new_key)
        pod.on_end = lambda: self.faults.ended(pod)
        self.pods.append(pod)
        return pod

    @property
    def live_pods(self) -> list[Pod]:
        return [pod for pod in self.pods if pod.alive]

    @property
    def workers(self) -> list[Worker]:
        """Living worker processes."""
        return [w for pod in self.live_pods for w in pod.workers if w.alive]

    def find(self, key: str) -> Worker | None:
        return next((worker for worker in self.workers if worker.key == key), None)

    def _new_key(self, slot: int, local_rank: int) -> str:
        self._incarnations += 1
        return f"{slot}.{local_rank}.{self._incarnations:032x}"

    def _transfer(self, joiner: Worker, donor_key: str) -> None:
        """Stream the donor's state to a joiner, as far as both live."""
        donor, fetch = self.find(donor_key), joiner.fetching
        delay = self.random.uniform(0.005, 0.05)
        if donor is None or donor.exit_code is not None:
            joiner.later(delay, lambda: joiner.fetch_failed(donor_key))
            return
        donor.transfers += 1
        started = self.scheduler.now

        def copied() -> None:
            values, final = list(donor.training.values), donor.final_state
            joiner.later(
                self.random.uniform(0.005, 0.2),
                lambda: ended(values if donor.alive else None, final),
            )

        def ended(values: list[float] | None, final: bool) -> None:
            if joiner.fetching is not fetch:
                return
            if values is None:
                joiner.fetch_failed(donor_key)
            else:
                joiner.fetched(donor_key, values, final)

        def watch() -> None:
            over = joiner.fetching is not fetch or joiner.state.started or not joiner.alive
            late = self.scheduler.now - started > TRANSFER_TIMEOUT_SECONDS
            if over or late or not donor.alive:
                donor.transfers -= 1
                if joiner.fetching is fetch and not joiner.state.started:
                    joiner.fetch_failed(donor_key)
                return
            self.scheduler.later(0.1, watch)

        donor.later(delay, copied)
        self.scheduler.later(0.1, watch)

    # --- the run ------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run to the end of the job and check what holds there.

        Raises:
            ViolationError: an invariant does not hold, or the run is stuck.
        """
        digest = hashlib.sha256()
        quiet_since, seen = 0.0, 0
        while not self._over():
            self._step()
            if self.monitor.events > seen:
                self.faults.look()
                seen = self.monitor.events
                line = f"{self.scheduler.now:.9f} {self.monitor.last}"
                digest.update(line.encode())
                if self._trace is not None:
                    self._trace(line)
            if self.monitor.progressed or self.faults.active:
                self.monitor.progressed, quiet_since = False, self.scheduler.now
            self._check_time(quiet_since)
        self._check_end()
        return Outcome(
            self.seed, seen, self.faults.injected, self.first_members, self.scheduler.now,
            self.monitor.values.applied_count, digest.hexdigest()[:16],
        )  # fmt: skip

    def _over(self) -> bool:
        return self.coordinator.completed and not self.live_pods

    def _step(self) -> None:
        try:
            self.scheduler.step()
        except ProtocolError as error:
            raise ViolationError(f"one side of the protocol refuses the other: {error}") from error

    def _check_time(self, quiet_since: float) -> None:
        now = self.scheduler.now
        endless = now > MOST_SECONDS or self.monitor.events > MOST_EVENTS
        if endless or now - quiet_since > QUIET_SECONDS:
            states = "; ".join(f"{w.key[:4]} {w.phase} {w.state.next_round}" for w in self.workers)
            raise ViolationError(f"{'endless' if endless else 'stuck'} at {now:.1f} s: {states}")

    def _check_end(self) -> None:
        """Every batch is committed, and all end with the same values."""
        committed, total = self.coordinator.ledger.committed, self.job.batches[0] * EPOCHS
        require(
            committed == total == len(self.monitor.commits),
            f"{committed} of {total} batches are committed at the end",
        )
        if (
            self.monitor.values.finalists
            <= self.monitor.touched | self.monitor.assignments.draining
        ):
            return  # Faults and drains may have taken everybody who held the final state.
        stayed = [w for w in self.job.finished if w.state.started and w.state.last_round is None]
        without = [w.key for w in stayed if not w.final_state]
        require(not without, f"{without} end without the final state")
        final = [w.training.values for w in self.job.finished if w.final_state]
        require(bool(final), "nobody ends with the final state")
        off = max(abs(a - b) for each in final for a, b in zip(each, final[0], strict=True))
        require(off < 1e-9, f"members end with parameters that differ by {off}")


def _shape(rng: random.Random) -> list[int]:
    """Return the workers of each first pod: 8 to 12 members in 3 to 6 pods."""
    pods = rng.randint(3, 6)
    workers = [1] * pods
    for _ in range(rng.randint(8, 12) - pods):
        workers[rng.randrange(pods)] += 1
    return workers


def _sync(rng: random.Random) -> m.SyncSettings:
    return m.SyncSettings(
        mode=rng.choice(("grid", "grid", "pool", "cross", "allreduce")),
        group_size=rng.choice((2, 3, 4)),
        every=1,
        commit=rng.choice(("relaxed", "strict")),
        seed=rng.randrange(1000),
    )
