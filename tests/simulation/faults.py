"""What goes wrong, when: drawn from the seed, struck at chosen moments of the protocol."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from dssync.control.messages import AskFlush
from simulation.aftermath import Aftermath
from simulation.asks import Stop
from simulation.echoes import ECHOES, Ending
from simulation.marking import Marking
from simulation.outages import ARBITER_FAULTS, LEADER_FAULTS, NETWORK_FAULTS, TANGLE_FAULTS
from simulation.profile import Profile

if TYPE_CHECKING:
    from simulation.pod import Pod
    from simulation.run import Simulation
    from simulation.worker import Worker

MOMENTS = (
    "now", "now", "operating", "building", "confirming", "fetching", "training", "waiting",
    "entering",
)  # fmt: skip
LATE_MOMENTS = ("last data", "final")
SPAN = (40, 700)
"""Events between which faults strike."""
FEWEST_EVENTS = 500
"""Of a run; where it would have fewer, another pod joins."""
FEWEST_FAULTS = 3
"""Before a member asks for an early end."""
EVENTS_OF_A_BATCH = 3
"""At a member that trains alone; with mates there are more."""
FEW_MEMBERS = 2
LATE_WORKERS = 4
LAST_BATCHES = 40
AGAIN_EVENTS = 40
"""Between faults that are drawn because too few have changed anything."""
PATIENCE = 60
"""Events for which a fault waits for its moment."""


class Faults:
    """The faults of one run."""

    def __init__(self, world: Simulation, profile: Profile, omitted: frozenset[int]) -> None:
        self.world = world
        self.random = world.random
        self.injected = 0
        self.active = 0
        """Faults that still last."""
        self.marks = Marking(world)
        self.log: list[str] = []
        """A line for each fault that has struck."""
        kinds = ("members",) * profile.members + ("leaders",) * profile.leaders
        kinds += ("network",) * profile.network + ("arbiter",) * profile.arbiter
        kinds += ("echoes",) * profile.echoes + ("tangles",) * profile.tangles
        plan = sorted(
            (self.random.randint(*SPAN), self.random.choice(kinds), self.random.choice(MOMENTS))
            for _ in range(self.random.randint(5, 8))
        )
        self.flapping: dict[str, set[str]] = defaultdict(set)
        """Launchers to whom the way of one, by uid, has come and gone, now or earlier."""
        self.planned = len(plan)
        """Number of faults, those at the end not counted."""
        self._plan = [each for number, each in enumerate(plan) if number not in omitted]
        late = self.random.choice(("last data", *LATE_MOMENTS, None))
        self._late = None if self.planned in omitted else late
        self._ending = Ending(self, Random(world.seed)) if profile.echoes else None
        self.stop = Stop(self, world.asks.stop_events, FEWEST_FAULTS)
        self._aftermath = Aftermath(self, Random(f"after {world.seed}"))
        self._patience = 0
        self._prolonged = False
        self._is_whole = not omitted

    def look(self) -> None:
        """Strike if the time and the moment of a fault have come."""
        if self.world.completed:
            self._aftermath.look()
            return
        if self._ending is not None:
            self._ending.look()
        self.stop.look()
        if not self._prolonged and self._would_be_short:
            self._prolonged = True
            self.world.add_pod(LATE_WORKERS)
        lacking = self._is_whole and self.injected < FEWEST_FAULTS
        if lacking and not self._plan:
            # Most were in vain, as where one launcher is left.
            self._plan.append((self.world.observer.events + AGAIN_EVENTS, "members", "now"))
        is_due = self._plan and self.world.observer.events >= self._plan[0][0]
        if is_due or (lacking and self._ends_soon):
            _, kind, moment = self._plan[0]
            # What is confirmed and not decided is what an echo can bring back.
            moment = "confirming" if kind == "echoes" else moment
            if self._strike(kind, moment) or self._give_up(kind):
                self._plan.pop(0)
        elif self._late and self._strike("members", self._late):
            self._late = None

    @property
    def _ends_soon(self) -> bool:
        """Whether the job may end before the next fault is due."""
        leader = self.world.leader
        if leader is None or leader.hub is None:
            return False
        ledger = leader.hub.coordinator.ledger
        return 0 < ledger.total - ledger.committed <= LAST_BATCHES

    @property
    def _would_be_short(self) -> bool:
        """Whether a member that is left alone would end the job before most faults have struck."""
        events, leader = self.world.observer.events, self.world.leader
        if events >= FEWEST_EVENTS or leader is None or leader.hub is None:
            return False
        world, ledger = leader.hub.coordinator.world, leader.hub.coordinator.ledger
        if world is None or len(world.view.members) > FEW_MEMBERS or not ledger.total:
            return False
        left = ledger.total - ledger.committed
        return events + EVENTS_OF_A_BATCH * left < FEWEST_EVENTS

    def _give_up(self, kind: str) -> bool:
        """Wait for a moment for some time, then strike anyway."""
        self._patience += 1
        return self._patience > PATIENCE and self._strike(kind, "now")

    def _strike(self, kind: str, moment: str) -> bool:
        # Most of the time it is for nothing: first what tells so soonest.
        if moment == "last data" and not self._is_data_scarce:
            return False
        if moment == "final" and not self.world.observer.final_assigned:
            return False
        victims = [w for w in self.world.workers if w.exit_code is None and _is(w, moment)]
        if not victims:
            return False
        self._patience = 0
        what, effective = self._do(kind, moment, victims)
        self.strikes(f"{what} at {moment}", effective=effective)
        return True

    def strikes(self, what: str, *, effective: bool = True) -> None:
        """Note a fault that has struck; it counts if it changed anything before the job's end."""
        self.injected += effective and not self.world.completed
        in_vain = "" if effective else ", in vain"
        self.log.append(f"{self.world.scheduler.now:.3f} {what}{in_vain}")
        self.world.observer.note(f"FAULT {self.log[-1]}")

    def _do(self, kind: str, moment: str, victims: list[Worker]) -> tuple[str, bool]:
        """Strike; return what struck whom, and whether that is a fault and changed anything."""
        if kind in ("members", "echoes"):
            faults = _LATE_FAULTS if moment in LATE_MOMENTS else _FAULTS
            faults = ECHOES if kind == "echoes" else faults
            victim, fault = self.random.choice(victims), self.random.choice(faults)
            effective = fault(self, victim)
            return f"{fault.__name__.lstrip('_')} {victim.key}", effective
        general = self.random.choice(_GENERAL[kind])
        leader = self.world.leader
        effective = general(self)
        who = "none" if leader is None else leader.uid
        return f"{general.__name__} (leader {who})", effective

    @property
    def _is_data_scarce(self) -> bool:
        """Whether all members but one have nothing to train on."""
        found = 0
        for worker in self.world.workers:
            if worker.state.started and _is(worker, "last data"):
                found += 1
                if found > 1:
                    return False
        return True

    # --- what faults are made of --------------------------------------------------------------

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something that belongs to a fault, which lasts until then."""
        self.active += 1

        def act() -> None:
            self.active -= 1
            action()

        self.world.scheduler.later(seconds, act)

    def kill(self, pod: Pod) -> bool:
        """Kill a launcher with its workers; tell whether it lived."""
        was_alive = pod.alive
        self.marks.lose(pod)
        pod.kill()
        self.world.operator.replace(pod)
        return was_alive

    def freeze(self, pod: Pod, seconds: float) -> bool:
        """Let a pod stand still for some time; tell whether all of it went on until now."""
        if pod.frozen or any(worker.frozen for worker in pod.workers):
            return False
        over = self.marks.hold(pod)
        pod.freeze()

        def thaw() -> None:
            if pod.alive:
                pod.thaw()
            over()

        self.later(seconds, thaw)
        return True

    def drain(self, pod: Pod) -> bool:
        """Tell a pod to leave; tell whether that is news to it."""
        is_news = not pod.draining
        pod.drain()
        self.world.operator.replace(pod)
        return is_news

    def cut_off(self, pod: Pod, seconds: float) -> None:
        """Let nobody reach a pod for some time, and end its connections."""
        heal = self._block(pod, self.marks.hold(pod))
        self.world.network.reset(pod.uid)
        self.later(seconds, heal)

    def _block(self, pod: Pod, over: Callable[[], None]) -> Callable[[], None]:
        """Let nobody reach a pod; return what ends that, and what it forgives."""
        network = self.world.network
        others = [each.uid for each in self.world.live_pods if each is not pod]
        ways = [way for uid in others for way in ((pod.uid, uid), (uid, pod.uid))]
        network.block(ways)

        def heal() -> None:
            network.unblock(ways)
            over()

        return heal

    def pod_of(self, worker: Worker) -> Pod:
        """Return where a worker runs."""
        return next(pod for pod in self.world.pods if worker in pod.workers)

    # --- faults: each tells whether it changes anything ---------------------------------------

    def _kill_worker(self, victim: Worker) -> bool:
        was_running = victim.alive and victim.exit_code is None
        self.world.observer.touched.lose([victim.key])
        victim.kill()
        return was_running

    def _kill_two(self, victim: Worker) -> bool:
        self._kill_worker(victim)
        others = [w for w in self.world.workers if w.exit_code is None]
        if others:
            self._kill_worker(self.random.choice(others))
        return True

    def _kill_donor(self, victim: Worker) -> bool:
        donor = victim.fetching and self.world.find(victim.fetching.donor)
        return self._kill_worker(donor or victim)

    def _kill_pod(self, victim: Worker) -> bool:
        return self.kill(self.pod_of(victim))

    def _kill_all_but_one(self, victim: Worker) -> bool:
        keep = self.pod_of(victim)
        others = [pod for pod in self.world.live_pods if pod is not keep]
        for pod in others:
            self.kill(pod)
        return bool(others)

    def _kill_all_workers_but_one(self, victim: Worker) -> bool:
        others = [w for w in self.world.workers if w is not victim and w.exit_code is None]
        for worker in others:
            self._kill_worker(worker)
        return bool(others)

    def _freeze_worker(self, victim: Worker) -> bool:
        went_on = not victim.frozen
        over = self.world.observer.touched.hold([victim.key])
        seconds = self.random.choice((0.05, 0.5, 2.0, 6.0, 40.0))
        self.pod_of(victim).freeze_worker(victim)

        def thaw() -> None:
            if victim.alive:
                victim.thaw()
            over()

        self.later(seconds, thaw)
        return went_on

    def _freeze_pod(self, victim: Worker) -> bool:
        return self.freeze(self.pod_of(victim), self.random.choice((0.1, 1.0, 2.5, 6.0, 20.0)))

    def _cut(self, victim: Worker) -> bool:
        pod = self.pod_of(victim)
        self.marks.hold_link(pod)()
        return self.world.network.reset(pod.uid)

    def _cut_off(self, victim: Worker) -> bool:
        """Nobody reaches a pod for some time."""
        pod = self.pod_of(victim)
        heal = self._block(pod, self.marks.hold_link(pod))
        if self.random.random() < 0.5:
            self.world.network.reset(pod.uid)
        self.later(self.random.choice((0.1, 0.5, 3.0, 14.0)), heal)
        return len(self.world.live_pods) > 1

    def _slow_link(self, victim: Worker) -> bool:
        pod, extra = self.pod_of(victim), self.random.uniform(0.02, 1.0)
        over = self.marks.hold_link(pod)
        pod.extra_latency_seconds += extra

        def end() -> None:
            pod.extra_latency_seconds -= extra
            over()

        self.later(self.random.uniform(0.1, 4.0), end)
        return len(self.world.live_pods) > 1

    def _straggle(self, victim: Worker) -> bool:
        over = self.world.observer.touched.hold([victim.key])
        victim.slow.straggle(self.random.choice((0.5, 4.0, 12.0)), over)
        return True

    def _nan(self, victim: Worker) -> bool:
        self.world.observer.touched.hit([victim.key])
        return victim.turn_nan()

    def _join(self, victim: Worker) -> bool:
        self.world.add_pod(self.random.randint(1, 3))
        return True

    def _drain(self, victim: Worker) -> bool:
        return self.drain(self.pod_of(victim))

    def _flush(self, victim: Worker) -> bool:
        if victim.state.started:
            victim.say(AskFlush())
        return False  # It is asked for when all is well, too.


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
    Faults._cut, Faults._cut_off, Faults._slow_link, Faults._straggle, Faults._nan, Faults._join,
    Faults._drain, Faults._flush,
)  # fmt: skip
_LATE_FAULTS = (
    Faults._kill_worker, Faults._kill_worker, Faults._kill_pod, Faults._freeze_worker,
    Faults._freeze_worker, Faults._freeze_pod, Faults._cut, Faults._slow_link, Faults._nan,
    Faults._join, Faults._drain,
)  # fmt: skip
_GENERAL: dict[str, tuple[Callable[[Faults], bool], ...]] = {
    "leaders": LEADER_FAULTS,
    "network": NETWORK_FAULTS,
    "arbiter": ARBITER_FAULTS,
    "tangles": TANGLE_FAULTS,
}
