"""What goes wrong, when: drawn from the seed, struck at chosen moments of the protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dssync.control.messages import AskFlush

if TYPE_CHECKING:
    from simulation.pod import Pod
    from simulation.run import Simulation
    from simulation.worker import Worker

MOMENTS = (
    "now", "now", "operating", "building", "confirming", "fetching", "training", "waiting",
    "entering",
)  # fmt: skip
LATE_MOMENTS = ("last data", "final")


class Faults:
    """The faults of one run."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = simulation.random
        self.injected = 0
        self.active = 0
        """Faults that still last."""
        self.log: list[str] = []
        self._plan = sorted(
            (self._random.randint(20, 420), self._random.choice(MOMENTS))
            for _ in range(self._random.randint(3, 7))
        )
        self._late = self._random.choice(("last data", *LATE_MOMENTS, None))
        self._patience = 0
        self._replaced: set[str] = set()

    def look(self) -> None:
        """Strike if the time and the moment of a fault have come."""
        if self._simulation.coordinator.completed:
            return
        if self._plan and self._simulation.monitor.events >= self._plan[0][0]:
            moment = self._plan[0][1]
            if self._strike(moment) or self._give_up(moment):
                self._plan.pop(0)
        elif self._late and self._strike(self._late):
            self._late = None

    def _give_up(self, moment: str) -> bool:
        """Wait for a moment for some time, then strike anyway."""
        self._patience += 1
        return self._patience > 25 and self._strike("now")

    def _strike(self, moment: str) -> bool:
        victims = [w for w in self._simulation.workers if w.exit_code is None and _is(w, moment)]
        if not victims or (moment == "last data" and not self._is_data_scarce):
            return False
        victim, fault = self._random.choice(victims), self._random.choice(self._faults_at(moment))
        self._patience = 0
        self.injected += 1
        now = self._simulation.scheduler.now
        self.log.append(f"{now:.3f} {fault.__name__.lstrip('_')} {victim.key} at {moment}")
        fault(self, victim)
        return True

    def _faults_at(self, moment: str) -> tuple[Callable[[Faults, Worker], None], ...]:
        faults = _LATE_FAULTS if moment in LATE_MOMENTS else _FAULTS
        takeovers = (Faults._kill_coordinator,) * 3
        return faults + takeovers if self._simulation.takeovers else faults

    @property
    def _is_data_scarce(self) -> bool:
        """Whether all members but one have nothing to train on."""
        workers = [worker for worker in self._simulation.workers if worker.state.started]
        return sum(_is(worker, "last data") for worker in workers) <= 1

    def ended(self, pod: Pod) -> None:
        """A pod has come to its end: the operator replaces it, at least if it was the last."""
        if not self._simulation.coordinator.completed:
            self._replace(pod)

    # --- helpers ------------------------------------------------------------------------------

    def _pod_of(self, worker: Worker) -> Pod:
        return next(pod for pod in self._simulation.pods if worker in pod.workers)

    def _touch(self, *workers: Worker) -> None:
        self._simulation.monitor.touched.update(worker.key for worker in workers)

    def _touch_pod(self, pod: Pod) -> None:
        self._touch(*pod.workers)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self.active += 1

        def act() -> None:
            self.active -= 1
            action()

        self._simulation.scheduler.later(seconds, act)

    def _replace(self, pod: Pod) -> None:
        """Let the operator start another pod in the slot, always if none is left."""
        simulation = self._simulation
        others = [each for each in simulation.live_pods if each is not pod and not each.draining]
        if pod.spec.uid in self._replaced or (others and self._random.random() < 0.4):
            return
        self._replaced.add(pod.spec.uid)
        spec = pod.spec

        def start() -> None:
            if pod.alive:
                self._later(0.1, start)
            elif not simulation.coordinator.completed:
                simulation.add_pod(spec.workers, spec.slot)

        self._later(self._random.uniform(0.01, 3.0), start)

    # --- faults -------------------------------------------------------------------------------

    def _kill_worker(self, victim: Worker) -> None:
        self._touch(victim)
        victim.kill()

    def _kill_two(self, victim: Worker) -> None:
        self._kill_worker(victim)
        others = [w for w in self._simulation.workers if w.exit_code is None]
        if others:
            self._kill_worker(self._random.choice(others))

    def _kill_donor(self, victim: Worker) -> None:
        donor = victim.fetching and self._simulation.find(victim.fetching.donor)
        self._kill_worker(donor or victim)

    def _kill_pod(self, victim: Worker) -> None:
        pod = self._pod_of(victim)
        self._touch_pod(pod)
        pod.kill()
        self._replace(pod)

    def _kill_coordinator(self, victim: Worker) -> None:
        """The pod of the coordinator is killed, or the coordinator changes for another reason."""
        if self._simulation.hub.down:
            return
        if self._random.random() < 0.7:
            self._kill_pod(victim)
        seconds = self._random.uniform(0.05, 1.5)
        self._later(seconds + 0.5, lambda: None)
        self._simulation.lose_coordinator(seconds)

    def _kill_all_but_one(self, victim: Worker) -> None:
        keep = self._pod_of(victim)
        for pod in self._simulation.live_pods:
            if pod is not keep:
                self._touch_pod(pod)
                pod.kill()
                self._replace(pod)

    def _kill_all_workers_but_one(self, victim: Worker) -> None:
        for worker in self._simulation.workers:
            if worker is not victim and worker.exit_code is None:
                self._kill_worker(worker)

    def _freeze_worker(self, victim: Worker) -> None:
        self._touch(victim)
        seconds = self._random.choice((0.05, 0.5, 2.0, 6.0, 40.0))
        self._pod_of(victim).freeze_worker(victim)
        self._later(seconds, lambda: victim.thaw() if victim.alive else None)

    def _freeze_pod(self, victim: Worker) -> None:
        pod = self._pod_of(victim)
        if pod.frozen or any(worker.frozen for worker in pod.workers):
            return
        self._touch_pod(pod)
        pod.freeze()
        seconds = self._random.choice((0.1, 1.0, 2.5, 6.0))
        self._later(seconds, lambda: pod.thaw() if pod.alive else None)

    def _cut(self, victim: Worker) -> None:
        pod = self._pod_of(victim)
        self._touch_pod(pod)
        pod.cut(self._random.choice((0.01, 0.1, 0.5, 3.0)))

    def _slow_link(self, victim: Worker) -> None:
        pod = self._pod_of(victim)
        self._touch_pod(pod)
        pod.extra_latency_seconds = self._random.uniform(0.02, 1.0)

        def end() -> None:
            self._touch_pod(pod)
            pod.extra_latency_seconds = 0.0

        self._later(self._random.uniform(0.1, 4.0), end)

    def _straggle(self, victim: Worker) -> None:
        self._touch(victim)
        victim.slow.extra_seconds = self._random.choice((0.5, 4.0, 12.0))

    def _nan(self, victim: Worker) -> None:
        self._touch(victim)
        victim.turn_nan()

    def _join(self, victim: Worker) -> None:
        self._simulation.add_pod(self._random.randint(1, 3))

    def _drain(self, victim: Worker) -> None:
        pod = self._pod_of(victim)
        pod.drain()
        if self._random.random() < 0.3:
            self._later(self._random.uniform(0, 0.1), pod.drain)
        self._replace(pod)

    def _flush(self, victim: Worker) -> None:
        if victim.state.started:
            victim.say(AskFlush())


def _is(worker: Worker, moment: str) -> bool:
    """Tell whether a worker is at a moment."""
    if moment == "last data":
        return bool(worker.state.leases(0).batches) or worker.training.busy
    if moment == "final":
        return any(assign.kind == "final" for assign in worker.state.upcoming)
    return moment in ("now", worker.phase)


_FAULTS = (
    Faults._kill_worker, Faults._kill_worker, Faults._kill_two, Faults._kill_donor,
    Faults._kill_pod, Faults._kill_all_but_one, Faults._kill_all_workers_but_one,
    Faults._freeze_worker, Faults._freeze_worker, Faults._freeze_pod, Faults._freeze_pod,
    Faults._cut, Faults._cut, Faults._slow_link, Faults._straggle, Faults._nan, Faults._join,
    Faults._drain, Faults._flush,
)  # fmt: skip
_LATE_FAULTS = (
    Faults._kill_worker, Faults._kill_worker, Faults._kill_pod, Faults._freeze_worker,
    Faults._freeze_worker, Faults._freeze_pod, Faults._cut, Faults._slow_link, Faults._nan,
    Faults._join, Faults._drain,
)  # fmt: skip
