"""A launcher with its workers: election, uplink, heartbeats, exits, restarts, drain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dssync.control import ballots as b, messages as m
from dssync.control.adoption import Electorate
from dssync.control.events import ExitsConfirmed, Looked
from dssync.control.record import Record
from dssync.control.share import Share
from dssync.control.takeover import Launcher, Launchers, NewTerm, NobodyLeads, Report, Succeed
from simulation.campaign import Campaign
from simulation.handover import hand_over, stay_for_others
from simulation.hub import Hub
from simulation.network import End, Handlers, Host
from simulation.spec import Spec
from simulation.uplink import LocalUplink, RemoteUplink
from simulation.worker import Worker

if TYPE_CHECKING:
    from simulation.run import Simulation

HEARTBEAT_SECONDS = 0.5
DRAIN_SECONDS = 20.0
MOST_SLOTS, MOST_WORKERS = 32, 16
"""More than any run has."""
HANG_SECONDS = 15.0
"""A worker that stands still for this long is killed and started again."""


class Pod(Host):
    """One life of one slot."""

    def __init__(self, world: Simulation, spec: Spec) -> None:
        super().__init__(world.scheduler, spec.uid, spec.rate)
        self.world, self.spec = world, spec
        self.workers: list[Worker] = []
        self.completed = False
        self.draining = False
        self.leaving = False
        """It waits only for those who need the coordinator in it."""
        self.fuse: int | None = None
        """Effects after which it dies."""
        self.on_end: Callable[[], None] = lambda: None
        self.campaign: Campaign | None = None
        self.hub: Hub | None = None
        self._uplink: LocalUplink | RemoteUplink | None = None
        self._linked = False
        self._leaderless = False
        self._benched: set[str] = set()
        """Members that were put out and have not come back."""
        self._done: set[str] = set()
        """Members that were told that the job is done, and have not entered again."""
        self._term = 0
        self._starting = 0
        self._records = world.protocol.records()
        self._reported: dict[str, int] = {}
        """The term in which each worker has reported; what it says belongs to it."""
        world.network.hosts[self.uid] = self
        for local_rank in range(spec.workers):
            self._start_worker(local_rank)
        me = Launcher(spec.slot, spec.uid, spec.uid, spec.uid)
        self.campaign = Campaign(self, me, world.election_settings)
        self._heartbeat()

    @property
    def election_phase(self) -> str:
        return "none" if self.campaign is None else self.campaign.election.phase.value

    @property
    def is_linked(self) -> bool:
        """Whether a coordinator has taken it in."""
        return self._linked

    def follows(self, term: int) -> bool:
        """Tell whether it is linked to the coordinator of a term in another launcher."""
        return self._linked and self._term == term and self.hub is None

    @property
    def gives_way(self) -> bool:
        """Whether it wants another launcher to coordinate."""
        return self.draining or self.leaving

    def survives_effect(self) -> bool:
        """Tell whether the pod lives to have its next effect."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0 and self.alive:
                self.kill()
                self.on_end()
        return self.alive

    def hello(self) -> m.Hello:
        spec = self.spec
        workers = max(1, len(self.workers) + self._starting)
        return m.Hello(spec.slot, spec.uid, workers, spec.place, spec.uid, spec.uid)

    # --- who coordinates ----------------------------------------------------------------------

    def perform(self, effect: b.Effect) -> None:
        """Do what the election wants of this launcher."""
        match effect:
            case b.Follow(leader):
                self._take_uplink(None)
                self._uplink = RemoteUplink(self, leader)
            case b.Lead(record, electorate, _, age_seconds):
                self._lead(record, electorate, age_seconds)
            case b.Hold(record, age_seconds) if self.hub is not None:
                hub = self.hub
                hub.handle(Looked(age_seconds))
                self._confirm_exits(record.gone)
                hub.heard(record)
            case b.StepDown():
                self._stop_hosting()
            case b.NobodyLeads():
                self._nobody_leads()
            case b.HandOver(successor, term) if self.hub is not None:
                self.hub.tell(successor.slot, Succeed(term))
            case _:
                pass

    def _lead(self, record: Record, electorate: Electorate, age_seconds: float) -> None:
        coordinator, monitor = self.world.new_coordinator(record, electorate, self)
        self._take_uplink(None)
        hub = self.hub = Hub(self, coordinator, monitor)
        hub.record(record)
        self._uplink = LocalUplink(self, hub)
        hub.introduce_local(self.hello())
        hub.handle(Looked(age_seconds))
        if self.alive:
            self.linked(record.term, first=True)

    def _take_uplink(self, uplink: RemoteUplink | None) -> None:
        former, self._uplink, self._linked = self._uplink, uplink, False
        if former is not None:
            former.close()

    def _stop_hosting(self) -> None:
        hub, self.hub = self.hub, None
        if hub is not None:
            hub.close()

    def _confirm_exits(self, gone: frozenset[str]) -> None:
        if self.hub is not None:
            missing = [each.uid for each in self.hub.missing]
            ended = tuple(u for u in missing if u in gone or self.world.has_ended(u))
            if ended:
                self.hub.handle(ExitsConfirmed(ended))

    def accept(self, end: End) -> None:
        """Take a connection in: its first frame is a hello."""

        def first(frame: bytes) -> None:
            hello, name, term = self.world.parcels.unpack(frame)  # type: ignore[misc]
            hub = self.hub
            if hub is None or not hub.introduce(end, hello, session_name=name, term=term):
                end.close()

        end.handlers = Handlers(first, lambda: None)

    def tell_election(self, event: b.Event) -> None:
        if self.campaign is not None:
            self.campaign.handle(event)

    # --- the link -----------------------------------------------------------------------------

    def linked(self, term: int, *, first: bool) -> None:
        """The coordinator has taken this launcher in."""
        self._linked = True
        self.tell_election(b.Linked(term))
        if first:
            self._begin_term(term)
        elif self._leaderless:
            self._leaderless = False
            self._records.discard_unheard()
            self.lost_contact()

    def _nobody_leads(self) -> None:
        """Let members that can go on by themselves do so."""
        self._leaderless = True
        for worker in self.workers:
            if worker.entered and self.world.job.sync.commit == "relaxed":
                self._tell(worker, m.TO_MEMBER.encode_text(NobodyLeads()))

    def _answer_alone(self, worker: Worker, message: m.FromMemberBody) -> None:
        """Give a member that goes on by itself something to train on."""
        if isinstance(message, m.Take) and self.world.job.sync.commit == "relaxed":
            share = Share(self.spec.slot * MOST_WORKERS + worker.rank, MOST_SLOTS * MOST_WORKERS)
            leases = self._records.give_out(worker.key, message, share)
            self._tell(worker, m.TO_MEMBER.encode_text(leases))

    def _tell(self, worker: Worker, body: str) -> None:
        if body.startswith('["Bench"'):
            self._benched.add(worker.key)
        elif body.startswith('["Completed"'):
            self._done.add(worker.key)
        if worker.key not in self._benched or not body.startswith('["NobodyLeads"'):
            worker.deliver(body)

    def link_lost(self) -> None:
        self.tell_election(b.LinkLost())

    def lost_contact(self) -> None:
        """The coordinator gave this pod up: its members enter again."""
        if self.draining:
            self._send(m.Drain())
        bench = m.TO_MEMBER.encode_text(m.Bench("the coordinator lost contact with this pod"))
        for worker in self.workers:
            if worker.entered and worker.key not in self._benched:
                self._records.benched(worker.key)
                self._tell(worker, bench)

    def _send(self, message: m.FromLauncher) -> None:
        if self._uplink is not None and self._linked and self.alive:
            self._uplink.send(message)

    def _begin_term(self, term: int) -> None:
        """Tell a new coordinator where this pod and its members stand."""
        self._term, self._leaderless = term, False
        self._records.link(term)
        if self.draining:
            self._send(m.Drain())
        self._stand()
        for worker in self.workers:
            worker.deliver(m.TO_MEMBER.encode_text(NewTerm(term)))

    def _stand(self) -> None:
        keys = tuple(worker.key for worker in self.workers)
        self._send(m.Standing(keys, len(keys) + self._starting, self._records.report))

    def _heartbeat(self) -> None:
        self._send(m.Heartbeat(()))
        self._confirm_exits(frozenset())
        self.later(HEARTBEAT_SECONDS / self._rate, self._heartbeat)

    def hears(self, term: int, message: m.ToLauncher) -> None:
        """Take in a message of the coordinator of a term."""
        if term != self._term or not self._linked:
            return
        match message:
            case Launchers(launchers, missing):
                self.tell_election(b.Viewed(launchers, missing))
            case Succeed(ending):
                self.tell_election(b.Appointed(ending))
            case m.LedgerNews():
                self._records.learn(message)
            case m.ToMember(key, body):
                self._records.told(key, body)
                for worker in self.workers:
                    if worker.key == key:
                        self._tell(worker, body)
            case m.JobCompleted():
                self.completed = True
                self._leave_if_done()
            case _:
                pass
        self._note_end()

    def _note_end(self) -> None:
        """Stand for election until every worker, too, has heard that the job is done."""
        if self.completed:
            keys = {worker.key for worker in self.workers}
            self.tell_election(b.Finished(not self._starting and keys <= self._done))

    # --- the workers --------------------------------------------------------------------------

    def _start_worker(self, local_rank: int) -> None:
        key = self.world.new_key(self.spec.slot, local_rank)
        worker = Worker(self.world.job, key, lambda *said: self.run(lambda: self._pass_on(*said)))
        self.workers.append(worker)
        self.world.observer.touched.homes[key] = self.uid
        if self._term:
            worker.deliver(m.TO_MEMBER.encode_text(NewTerm(self._term)))
        worker.begin(self.spec.import_seconds)
        delay = self.scheduler.random.uniform(0.001, 0.02)
        worker.on_exit = lambda: self.later(delay, lambda: self._exited(worker, local_rank))

    def _start_again(self, local_rank: int) -> None:
        self._starting -= 1
        self._start_worker(local_rank)

    def _pass_on(self, key: str, message: m.FromMemberBody) -> None:
        worker = next((each for each in self.workers if each.key == key), None)
        if worker is None:
            return
        body = m.MEMBER.encode_text(message)
        self._records.said(key, body, heard=not self._leaderless)
        if isinstance(message, Report):
            self._reported[key] = message.term
        elif isinstance(message, m.Enter):
            self._benched.discard(key)
            self._done.discard(key)
            self._note_end()
        if self._leaderless:
            self._answer_alone(worker, message)
        elif self._reported.get(key, 0) == self._term:
            if isinstance(message, Report):
                self._stand()
            self._send(m.FromMember(key, body))

    def freeze_worker(self, worker: Worker) -> None:
        """Freeze a worker; the hang timer ends it if it does not come back."""
        worker.freeze()

        def watch() -> None:
            if worker.frozen and worker.alive:
                worker.kill()

        self.later(HANG_SECONDS, watch)

    def _exited(self, worker: Worker, local_rank: int) -> None:
        if worker not in self.workers:
            return
        self.workers.remove(worker)
        self._records.gone(worker.key)
        if worker.exit_code == 0 and not worker.drained:
            self.world.job.finished.append(worker)
        code = -9 if worker.exit_code is None else worker.exit_code
        over = self.completed or self.draining
        restart = code != 0 and not over and self.world.job.restarts
        self._send(m.Exited(worker.key, code, restart))
        if restart:
            self._starting += 1
            seconds = self.scheduler.random.uniform(0.05, 1.0)
            self.later(seconds, lambda: self._start_again(local_rank))
        self._note_end()
        self._leave_if_done()

    def freeze(self) -> None:
        super().freeze()
        for worker in self.workers:
            worker.freeze()

    def thaw(self) -> None:
        for worker in self.workers:
            worker.frozen = False
        super().thaw()
        for worker in list(self.workers):
            worker.thaw()

    def kill(self) -> None:
        """The launcher dies and its workers with it."""
        super().kill()
        for worker in self.workers:
            worker.kill()
        self.world.network.died(self.uid)
        self._stop_hosting()

    # --- the end ------------------------------------------------------------------------------

    def drain(self) -> None:
        """Announce that the pod leaves, once it coordinates no longer."""
        if self.draining:
            return
        self.draining = True
        term = self._term
        hand_over(self, lambda: self._send(m.Drain()) if self._term == term else None)
        self.later(DRAIN_SECONDS, self._cut_short)

    def _cut_short(self) -> None:
        """Take no more time to drain, whatever round the workers are in: their mates lose them."""
        if self.alive and self.workers:
            self.world.faults.marks.lose(self)
        self._end()

    def _leave_if_done(self) -> None:
        """Leave when no worker is left, but not from under those who need the coordinator here."""
        if self.workers or self._starting or self.leaving or not self.alive:
            return
        self.leaving = True
        stay_for_others(self, self._end)

    @property
    def is_over(self) -> bool:
        """Whether it knows that the job is done."""
        return self.completed or (self.hub is not None and self.hub.completed)

    def _end(self) -> None:
        if self.alive:
            hub = self.hub
            if hub is not None and hub.completed:
                hub.finish(self._exit)
            else:
                self._exit()

    def _exit(self) -> None:
        if self.alive:
            self.world.observer.progressed = True
            self.kill()
            self.on_end()
