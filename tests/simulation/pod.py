"""A launcher with its workers: one connection, heartbeats, exits, restarts, drain."""

from collections.abc import Callable
from dataclasses import dataclass

from dssync.control import messages as m
from dssync.control.records import CommitRecords
from dssync.control.takeover import NewTerm, Report
from simulation.network import Connection, Hub
from simulation.scheduler import Process
from simulation.worker import Job, Worker

HEARTBEAT_SECONDS = 0.25
HANG_SECONDS = 15.0
"""A worker that stands still for this long is killed and started again."""


@dataclass(frozen=True)
class Spec:
    """What a pod is."""

    slot: int
    uid: str
    workers: int
    place: tuple[str, str, str]


class Pod(Process):
    """One life of one slot."""

    def __init__(self, job: Job, spec: Spec, hub: Hub, new_key: Callable[[int, int], str]) -> None:
        super().__init__(job.scheduler)
        self.job, self.spec, self.hub = job, spec, hub
        self.workers: list[Worker] = []
        self.completed = False
        self.drained = False
        self.draining = False
        self.latency_seconds = 0.002
        self.extra_latency_seconds = 0.0
        self.on_end: Callable[[], None] = lambda: None
        self.connection: Connection | None = None
        self._session = hub.new_session()
        self._known = False
        self._term = 0
        self._starting = 0
        self._records = CommitRecords()
        self._reported: dict[str, int] = {}
        """The term in which each worker has reported; what it says belongs to it."""
        self._resumed = False
        self._answered = False
        self._new_key = new_key
        for local_rank in range(spec.workers):
            self._start_worker(local_rank)
        self.connect()
        self._heartbeat()

    # --- the connection -----------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, or connect again, and say hello."""
        if not self.alive or self.drained:
            return
        slot, uid = self.spec.slot, self.spec.uid
        connection: Connection

        def up(frame: bytes) -> None:
            self.hub.frame(connection, slot, uid, frame)

        def down(frame: bytes) -> None:
            self.run(lambda: self._frame(connection, frame))

        connection = Connection(self.scheduler, self._latency, up, down)
        self.connection, self._answered, self._resumed = connection, False, False
        hello = m.Hello(slot, uid, max(1, len(self.workers) + self._starting), self.spec.place)
        first, resumes = self._session.passing(), self._known

        def arrive() -> None:
            if not self.hub.hello(connection, hello, resumes=resumes, first=first):
                self.run(lambda: self._refused(connection))

        self.scheduler.later(self._latency(), arrive)

    def _refused(self, connection: Connection) -> None:
        if self.connection is connection:
            self.cut(0.1)

    def cut(self, reconnect_seconds: float | None) -> None:
        """Lose the connection, and perhaps connect again."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        connection.open = False
        slot, uid = self.spec.slot, self.spec.uid
        delay = self.scheduler.random.uniform(0.0, 0.02)
        self.scheduler.later(delay, lambda: self.hub.lost(connection, slot, uid))
        if reconnect_seconds is not None:
            self.later(reconnect_seconds, self.connect)

    def _latency(self) -> float:
        spread = self.scheduler.random.uniform(0.5, 3.0)
        return self.latency_seconds * spread + self.extra_latency_seconds

    def _frame(self, connection: Connection, frame: bytes) -> None:
        if connection is not self.connection:
            return
        if not self._answered:
            self._answered = True
            term = int(frame.split()[1]) if frame.startswith(b"fresh") else self._term
            if term != self._term:
                self._begin_term(term)
            elif self._known and frame != b"resumed":
                self._start_anew()
            self._known = True
            return
        payload = self._session.accept(frame)
        if not self._resumed:
            self._resumed = True
            for each in self._session.resume():
                connection.send("up", each)
        if payload:
            self._handle(m.TO_LAUNCHER.decode(payload))

    def _begin_term(self, term: int) -> None:
        """Tell a new coordinator where this pod and its members stand."""
        self._term, self._session = term, self.hub.new_session()
        if self.draining:
            self._send(m.Drain())
        self._stand()
        for worker in self.workers:
            worker.deliver(m.TO_MEMBER.encode_text(NewTerm(term)))

    def _stand(self) -> None:
        keys = tuple(worker.key for worker in self.workers)
        workers = len(self.workers) + self._starting
        self._send(m.Standing(keys, workers, self._records.report))

    def _start_anew(self) -> None:
        """The coordinator gave this pod up: its members enter again."""
        self._session = self.hub.new_session()
        bench = m.TO_MEMBER.encode_text(m.Bench("the coordinator lost contact with this pod"))
        for worker in self.workers:
            if worker.entered:
                worker.deliver(bench)
        if self.draining:
            self._send(m.Drain())

    def _send(self, message: m.FromLauncher) -> None:
        frame = self._session.number(m.LAUNCHER.encode(message))
        if self.connection is not None and self._resumed:
            self.connection.send("up", frame)

    def _heartbeat(self) -> None:
        if self.connection is not None and self._resumed:
            beat = m.LAUNCHER.encode(m.Heartbeat(()))
            self.connection.send("up", self._session.passing(beat))
        self.later(HEARTBEAT_SECONDS, self._heartbeat)

    def _handle(self, message: object) -> None:
        match message:
            case m.LedgerNews(ledger):
                self._records.learn(ledger)
            case m.ToMember(key, body):
                self._records.told(key, body)
                for worker in self.workers:
                    if worker.key == key:
                        worker.deliver(body)
            case m.Drained():
                self.drained = True
                self._exit_if_done()
            case m.JobCompleted():
                self.completed = True
                self._exit_if_done()

    # --- the workers --------------------------------------------------------------------------

    def _start_worker(self, local_rank: int) -> None:
        key = self._new_key(self.spec.slot, local_rank)
        worker = Worker(self.job, key, lambda *said: self.run(lambda: self._pass_on(*said)))
        self.workers.append(worker)
        if self._term:
            worker.deliver(m.TO_MEMBER.encode_text(NewTerm(self._term)))
        worker.begin()
        delay = self.scheduler.random.uniform(0.001, 0.02)
        worker.on_exit = lambda: self.later(delay, lambda: self._exited(worker, local_rank))

    def _start_again(self, local_rank: int) -> None:
        self._starting -= 1
        self._start_worker(local_rank)

    def _pass_on(self, key: str, message: m.FromMemberBody) -> None:
        body = m.MEMBER.encode_text(message)
        self._records.said(key, body)
        if isinstance(message, Report):
            self._reported[key] = message.term
            self._stand()
        if self._term and self._reported.get(key) == self._term:
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
            self.job.finished.append(worker)
        code = -9 if worker.exit_code is None else worker.exit_code
        over = self.completed or self.draining
        restart = code != 0 and not over and self.job.restarts
        if self._known:
            self._send(m.Exited(worker.key, code, restart))
        if restart:
            self._starting += 1
            seconds = self.scheduler.random.uniform(0.05, 1.0)
            self.later(seconds, lambda: self._start_again(local_rank))
        elif not self.workers:
            self.drained = True
        self._exit_if_done()

    def drain(self) -> None:
        """Announce that the pod leaves."""
        if not self.draining:
            self.draining = True
        self._send(m.Drain())

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
        self.cut(None)

    def _exit_if_done(self) -> None:
        if (self.completed or self.drained) and not self.workers:
            self.kill()
            self.on_end()
