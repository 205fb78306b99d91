"""The launcher: a pod's main process. Starts workers, carries their messages, answers signals.

Everything it decides itself is small: whether a worker is started again (``restart``), whether a
silent one is ended, and what the pod's verdict is (``verdict``). Membership is the coordinator's
business, wherever that runs.
"""

import asyncio
import contextlib
import secrets
import signal
import time
from collections.abc import Coroutine

from msgspec.structs import replace

from dssync.agent import office
from dssync.agent.coordination import Coordination, Handlers
from dssync.agent.crew import Worker
from dssync.agent.forkclient import ForkServerLostError
from dssync.agent.history import ViewLog
from dssync.agent.link import LinkHandlers, WorkerLink
from dssync.agent.report import Reporter
from dssync.agent.restart import Action
from dssync.agent.settings import Settings
from dssync.agent.supervisor import Supervisor, WorkerExit, WorkerProcess, WorkerSpec
from dssync.agent.verdict import Ending, Verdict, verdict_of
from dssync.control import messages as m
from dssync.control.codec import tag_of
from dssync.control.records import CommitRecords
from dssync.control.share import Share
from dssync.control.takeover import NewTerm, NobodyLeads
from dssync.control.view import Member

LEAVE_SECONDS = 1.0
"""Time between SIGTERM and SIGKILL when the launcher leaves at once."""
RESERVE_SECONDS = 5.0
"""What a drain leaves of its time, for workers to end and files to close."""


class Launcher:
    """Runs the workers of one pod.

    Args:
        settings: what ``dssync run`` was told.
        reporter: takes log lines and metrics.
    """

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings = settings
        self._reporter = reporter
        self._supervisor = Supervisor(settings, self._exited)
        self._workers: dict[str, Worker] = {}
        self._records = CommitRecords()
        self._log = ViewLog(settings.history.view_log)
        # Once: a worker may come back when the file is gone, and is to know what its mates know.
        self._token = office.read_token(settings.control.token_file)
        self._early_exits: dict[WorkerProcess, WorkerExit] = {}
        self._starting = 0
        self._ending = Ending()
        self._coordination: Coordination | None = None
        self._term = 0
        """Of the coordinator that this launcher is linked to; 0 before the first."""
        self._leaderless = False
        self._uid = settings.job.pod_uid or secrets.token_hex(16)
        self._idle = asyncio.Event()
        self._leave = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._drain_began: float | None = None

    async def run(self) -> Verdict:
        """Run to the end and return the pod's verdict."""
        handlers = Handlers(
            hello=self._hello,
            deliver=self._deliver,
            on_term=self._new_term,
            on_again=self._linked_again,
            on_fresh=self._lost_contact,
            on_fenced=self._fenced,
            on_nobody=self._nobody_leads,
            on_given_up=self._given_up,
            on_answered=self._reporter.heartbeat_answered,
            log=self._log,
        )
        coordination = Coordination(self._settings, handlers, self._reporter)
        self._install_signals()
        await coordination.open()
        self._coordination = coordination
        heartbeat = asyncio.create_task(self._heartbeat(coordination))
        try:
            self._starting = self._settings.world.nproc_per_node
            for local_rank in range(self._starting):
                self._spawn(self._start(WorkerSpec(local_rank)))
            await self._until_over()
            await coordination.until_unneeded(self._leave)
        finally:
            heartbeat.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await heartbeat
            await self._supervisor.stop(self._stop_seconds)
            await coordination.close()
            await asyncio.to_thread(self._log.close)
        return verdict_of(self._ending)

    # --- workers ----------------------------------------------------------------------------

    async def _start(self, spec: WorkerSpec) -> None:
        """Start a worker that ``_starting`` counts already."""
        try:
            if not self._ending.over:
                await self._open(spec)
        except (OSError, ForkServerLostError) as error:
            self._given_up(f"worker {spec.local_rank} could not be started: {error}")
        finally:
            self._starting -= 1
            self._check_idle()

    async def _open(self, spec: WorkerSpec) -> None:
        process = await self._supervisor.start(spec)
        key = Member(self._settings.job.slot, spec.local_rank, secrets.token_hex(16)).key
        handlers = LinkHandlers(
            on_control=lambda body: self._from_worker(key, body),
            on_metrics=self._reporter.metrics,
            on_broken=lambda reason: self._broken(key, reason),
        )
        link = await WorkerLink.open(process.link, handlers)
        worker = self._workers[key] = Worker(process, link, key)
        link.set_up(self._setup(key))
        if self._term:
            worker.is_told(m.TO_MEMBER.encode_text(NewTerm(self._term)))
        self._reporter.log("started", member=key, pid=process.pid)
        early = self._early_exits.pop(process, None)
        if early is not None:
            self._exited(early)

    def _setup(self, key: str) -> dict[str, object]:
        sync, control = self._settings.sync, self._settings.control
        return {
            "member": key,
            "mode": sync.mode,
            "group_size": sync.group_size,
            "every": sync.every,
            "commit": sync.commit,
            "seed": sync.seed,
            "average_optimizer_state": sync.average_optimizer_state,
            "backend": sync.backend,
            "host": control.address,
            "interface": control.interface,
            "workers": self._settings.world.nproc_per_node,
            "token": self._token.hex(),
            "view_log": str(self._settings.history.view_log or ""),
        }

    def _exited(self, exit_: WorkerExit) -> None:
        # What the worker wrote last is in its link. Two turns of the loop: the first one's read
        # comes after what was queued before it, the second one's call after that read.
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.call_soon(self._bury, exit_))

    def _bury(self, exit_: WorkerExit) -> None:
        worker = next((w for w in self._workers.values() if w.process is exit_.worker), None)
        if worker is None:
            # It died before its link was open; ``_open`` comes back to it.
            self._early_exits[exit_.worker] = exit_
            return
        again = exit_.action is Action.RESTART and not self._ending.over
        del self._workers[worker.key]
        worker.link.close()
        self._records.gone(worker.key)
        self._send(m.Exited(worker.key, exit_.returncode, again))
        self._reporter.exited(exit_, again)
        if again:
            self._starting += 1
            self._spawn(self._start(exit_.worker.spec.again()))
        else:
            self._end_of(worker, exit_)

    def _end_of(self, worker: Worker, exit_: WorkerExit) -> None:
        self._ending.exits.append(exit_)
        if exit_.returncode != 0 and not worker.admitted and not self._ending.over:
            # A pod counts when all its workers are in, so the siblings would wait for ever.
            rank = worker.process.spec.local_rank
            self._given_up(f"worker {rank} ended with {exit_.returncode} before it was admitted")
        self._check_idle()

    def _check_idle(self) -> None:
        self._note_end()
        if not self._workers and not self._starting:
            self._idle.set()

    def _from_worker(self, key: str, body: str) -> None:
        worker = self._workers[key]
        worker.says(body)
        self._note_end()
        self._records.said(key, body, heard=not self._leaderless)
        if self._leaderless:
            # A coordinator hears of it by its report, or not at all.
            self._answer_alone(worker, body)
        # What it said before its report belongs to an earlier term, and is in the records.
        elif worker.term == self._term:
            if tag_of(body) == "Report":
                self._stand()
            self._send(m.FromMember(key, body))

    # --- coordinator ------------------------------------------------------------------------

    def _send(self, message: m.FromLauncher) -> None:
        if self._coordination is not None:
            self._coordination.send(message)

    def _deliver(self, message: m.ToLauncher) -> None:
        match message:
            case m.ToMember(key, body):
                # Also for a member that has just died: its mates may die with the coordinator.
                self._records.told(key, body)
                if key in self._workers:
                    self._workers[key].is_told(body)
            case m.LedgerNews():
                self._records.learn(message)
            case m.Evicted(key, reason) if key in self._workers:
                self._evict(self._workers[key], reason)
            case m.PleaseDrain():
                self._begin_drain(cause="request")
            case m.JobCompleted():
                self._ending.completed = True
            case _:
                pass
        self._note_end()

    def _note_end(self) -> None:
        """Stand for election until every worker, too, has heard that the job is done."""
        if self._ending.completed and self._coordination is not None:
            told = not self._starting and all(w.done for w in self._workers.values())
            self._coordination.finished(told)

    def _new_term(self, term: int) -> None:
        """Tell a new coordinator where this pod stands, and have its members do so."""
        self._term, self._leaderless = term, False
        self._records.link(term)
        self._reporter.log("linked", term=term)
        if self._ending.draining:
            # First, so that the members of this pod are in no round of the new term.
            self._send(m.Drain())
        self._stand()
        for worker in self._workers.values():
            worker.is_told(m.TO_MEMBER.encode_text(NewTerm(term)))

    def _stand(self) -> None:
        workers = len(self._workers) + self._starting
        self._send(m.Standing(tuple(self._workers), workers, self._records.report))

    def _hello(self) -> m.Hello:
        workers = max(1, len(self._workers) + self._starting)
        return replace(office.hello_of(self._settings), pod_uid=self._uid, workers=workers)

    def _evict(self, worker: Worker, reason: str) -> None:
        self._reporter.log("evicted", member=worker.key, reason=reason)
        worker.process.signal(signal.SIGKILL)

    def _broken(self, key: str, reason: str) -> None:
        """End a worker that cannot be heard any more, so that its mates need not wait for it."""
        if key in self._workers:
            self._reporter.log("broken", member=key, reason=reason.replace(" ", "_"))
            self._evict(self._workers[key], "protocol")

    def _lost_contact(self) -> None:
        """The coordinator gave this pod up: its members enter again, in place."""
        if self._ending.draining:
            self._send(m.Drain())  # What was said to it of this pod is forgotten.
        bench = m.TO_MEMBER.encode(m.Bench("the coordinator lost contact with this pod")).decode()
        for worker in self._workers.values():
            if worker.entered and not worker.benched:
                self._records.benched(worker.key)
                worker.is_told(bench)

    def _fenced(self) -> None:
        """The operator has replaced this pod, which was out of reach: go, and disturb nobody."""
        self._reporter.log("fenced", slot=self._settings.job.slot)
        self._ending.fenced = True
        self._leave.set()

    def _nobody_leads(self) -> None:
        """Let members that can go on by themselves do so."""
        if not self._leaderless:
            self._reporter.log("leaderless", term=self._term)
        self._leaderless = True
        for worker in self._workers.values():
            if worker.relaxed and not worker.benched:
                worker.is_told(m.TO_MEMBER.encode_text(NobodyLeads()))

    def _answer_alone(self, worker: Worker, body: str) -> None:
        """Give a member that goes on by itself something to train on."""
        take = m.MEMBER.decode(body) if tag_of(body) == "Take" else None
        if worker.relaxed and isinstance(take, m.Take):
            world, rank = self._settings.world, worker.process.spec.local_rank
            share = Share(
                self._settings.job.slot * world.nproc_per_node + rank,
                world.max * world.nproc_per_node,
            )
            worker.is_told(m.TO_MEMBER.encode_text(self._records.give_out(worker.key, take, share)))

    def _linked_again(self) -> None:
        """The coordinator was only out of reach: provisional rounds are none of its own."""
        if self._leaderless:
            self._leaderless = False
            self._records.discard_unheard()
            self._lost_contact()

    def _given_up(self, reason: str) -> None:
        self._ending.lost = reason
        self._leave.set()

    async def _heartbeat(self, coordination: Coordination) -> None:
        while True:
            await asyncio.sleep(self._settings.control.heartbeat_seconds)
            self._send(m.Heartbeat(tuple(w.progress for w in self._workers.values())))
            self._end_hung()
            if self._log.is_due(time.monotonic()):
                await asyncio.to_thread(self._log.sync)
            coordination.measure()

    def _end_hung(self) -> None:
        """End workers that have been out of the view and silent for too long."""
        limit = self._settings.supervision.hang_timeout_seconds
        for worker in self._workers.values():
            if worker.benched and worker.silent_seconds > limit:
                self._evict(worker, "hang")

    # --- the end ----------------------------------------------------------------------------

    @property
    def _stop_seconds(self) -> float:
        """Time between SIGTERM and SIGKILL for the workers that still run at the end.

        Who was told to go has had its time: what is left of the grace period is the reserve.
        """
        told = self._settings.supervision.shutdown_timeout_seconds
        return min(told, LEAVE_SECONDS) if self._ending.draining else told

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name in self._settings.supervision.signals:
            loop.add_signal_handler(getattr(signal, name), self._signalled, name)

    def _signalled(self, name: str) -> None:
        if self._ending.draining:
            self._leave.set()
        else:
            self._begin_drain(signal=name)

    def _begin_drain(self, **why: str) -> None:
        if self._ending.draining:
            return
        self._reporter.log("drain", **why)
        self._ending.draining = True
        self._drain_began = time.monotonic()
        self._spawn(self._announce_drain(bool(self._workers)))
        for worker in self._workers.values():
            if not worker.entered:
                worker.process.signal(signal.SIGTERM)
        self._spawn(self._bound_drain())

    async def _announce_drain(self, any_has_run: bool) -> None:
        """Say that this pod leaves, once it coordinates no longer."""
        if self._coordination is not None:
            term = self._term
            await self._coordination.hand_over()
            if self._term == term:
                self._send(m.Drain())
        if not any_has_run:
            # No worker has anything to hand back.
            self._idle.set()

    async def _bound_drain(self) -> None:
        """Leave when the time for the drain is over, at once if no round can end in it."""
        limit = self._settings.supervision.drain_timeout_seconds
        limit -= min(RESERVE_SECONDS, limit / 2)
        longest = max((w.round_seconds for w in self._workers.values()), default=0.0)
        if longest <= limit:
            await asyncio.sleep(limit)
        self._leave.set()

    async def _until_over(self) -> None:
        waits = [asyncio.create_task(each.wait()) for each in (self._idle, self._leave)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self._drain_began is not None:
            self._reporter.drained(time.monotonic() - self._drain_began)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
