"""A worker process: the real ``MemberState`` driven as the worker library drives it.

Two threads of a real worker are modelled. The link answers messages at once. The training thread
looks at the state between its steps and while it waits, in ``_advance``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.member import MemberState
from dssync.control.provisional import CAUSE
from dssync.control.takeover import Adopt
from simulation import wire
from simulation.asks import Saver
from simulation.builds import Builds
from simulation.fabric import Fabric, Numbers, Party
from simulation.observer import Observer
from simulation.scheduler import Process, Scheduler
from simulation.steps import Attempt, Slowness, Training
from simulation.violation import ViolationError

OPERATION_TIMEOUT_SECONDS = 20.0
PROVISIONAL_SECONDS = 2.0
ARRIVE_AFTER_SECONDS = 0.02
"""An operation that is over sooner is not announced."""
LEASE_DEPTH = 2
MODEL = ("w float32 3",)


@dataclass
class Job:
    """What all workers of a run share, and the hooks of the observer."""

    scheduler: Scheduler
    fabric: Fabric
    sync: m.SyncSettings
    batches: tuple[int, int]
    """Per epoch, and epochs."""
    transfer: Callable[["Worker", str], None]
    observer: Observer
    member_state: type[MemberState] = MemberState
    restarts: bool = True
    """Whether launchers start workers again; otherwise they have used their restarts up."""
    pace: float = 1.0
    saves: bool = False
    """Whether workers read and write checkpoints."""
    finished: list["Worker"] = field(default_factory=list)
    """Workers that saw the end of the job."""


class Worker(Process):
    """One incarnation of one worker."""

    def __init__(self, job: Job, key: str, say: Callable[[str, m.FromMemberBody], None]) -> None:
        super().__init__(job.scheduler)
        self.job = job
        self.key = key
        self.slow = Slowness(job.pace * job.scheduler.random.uniform(0.03, 0.08))
        self.state = job.member_state()
        self.exit_code: int | None = None
        self.entered = False
        self.fetching: m.Fetch | None = None
        self.transfers = 0
        """Joiners that fetch from this worker now."""
        self.final_state = False
        """It holds the values of the committed final flush."""
        self.drained = False
        self.on_exit: Callable[[], None] = lambda: None
        initial = [job.scheduler.random.uniform(-1, 1) for _ in range(3)]
        self.training = Training(initial)
        self._transmit = say
        self._last_said_seconds = 0.0
        self._builds = Builds(self)
        self._saver = Saver(self, saves=job.saves)
        self._terms: dict[tuple[int, int], int] = {}
        """The term of each assignment."""

    @property
    def rank(self) -> int:
        """Its local rank."""
        return int(self.key.split(".")[1])

    @property
    def phase(self) -> str:
        """What the training thread does, for faults that pick their moment."""
        attempt = self.training.attempt
        if not self.state.started:
            return "fetching" if self.fetching else "entering"
        if attempt is None:
            return "training" if self.training.busy else "waiting"
        if attempt.confirmed:
            return "confirming"
        return "operating" if attempt.operating else "building"

    def begin(self, import_seconds: float = 0.0) -> None:
        self.later(import_seconds + self.scheduler.random.uniform(0.01, 0.3), self._enter)

    def kill(self) -> None:
        super().kill()
        self.job.fabric.died(self.key)
        self.on_exit()

    def _exit(self) -> None:
        self.exit_code = 0
        flushed = max(0.0, self._last_said_seconds - self.scheduler.now)
        self.later(flushed, self.on_exit)

    # --- the link -----------------------------------------------------------------------------

    def deliver(self, body: str) -> None:
        self.run(lambda: self._deliver(body))

    def _deliver(self, body: str) -> None:
        message = wire.to_member(body)
        if isinstance(message, m.Fetch):
            message = replace(message)  # each is a request of its own, also with equal contents
        self.job.observer.events += 1
        if isinstance(message, m.Blob):
            self._builds.receive(message)
        else:
            ended = [] if isinstance(message, m.Bench) else self.state.ended_by(message)
            for answer in self.state.handle(message):
                self._say(self.key, answer)
            for stage in (stage for assign in ended for stage in assign.stages):
                self._builds.give_up(stage.communicator)
            if isinstance(message, Adopt):
                self._builds.give_up_all()
        if isinstance(message, m.Assign):
            for communicator in message.retire:
                self._builds.retire(communicator)
            if self.state.known(message.round) is message:
                self._terms[message.round, message.attempt] = self.state.term
                for stage in message.stages:
                    self._builds.build(stage)
        self.advance()

    def _say(self, key: str, message: m.FromMemberBody) -> None:
        self.state.history.said(message)
        self._transmit(key, message)

    def send_blob(self, communicator: str) -> None:
        """Tell the mates how to reach this member."""
        self._say(self.key, m.Blob(communicator, self.key, ""))

    def say(self, message: m.FromMemberBody) -> None:
        """Send from the training thread: in order, but the link's answers may overtake."""
        now = self.scheduler.now
        due = now + self.scheduler.random.choice((0.0, 0.0, 0.001, 0.003))
        self._last_said_seconds = max(due, self._last_said_seconds)
        self.later(self._last_said_seconds - now, lambda: self._say(self.key, message))

    # --- the training thread ------------------------------------------------------------------

    def advance(self) -> None:
        """Do what can be done without waiting."""
        if not self.alive or self.exit_code is not None or self.training.busy or not self.entered:
            return
        state = self.state
        if state.refused is not None:
            raise ViolationError(f"{self.key} was refused: {state.refused}")
        if state.benched is not None:
            self._return()
        elif state.completed is not None:
            self._finish()
        elif state.leaving:
            self._leave_drained()
        elif self.training.ended:
            return
        elif state.resume and not state.started:
            self._saver.read()
        elif state.fetch is not None and state.fetch is not self.fetching:
            self.fetching = state.fetch
            self.job.transfer(self, state.fetch.donor)
        elif state.started and not state.weighted and not self.training.welcomed:
            # The mates' values come before any training of this member could count.
            self.training.welcomed = True
            self._enter_step(idle=True)
        elif state.started and not self.training.stepped:
            self._step()
        elif state.started:
            self._synchronise()

    def _enter(self, applied_round: int = -1) -> None:
        self.entered = True
        address, generation = f"{self.key}:0", self.state.generation
        sync = self.job.sync
        self.say(m.Enter(MODEL, sync, address, applied_round, self.job.saves, generation))
        self.advance()

    def _return(self, *, spoiled: bool = False) -> None:
        """Come back as a joiner after a bench or a NaN."""
        holds_state = self.state.started and not spoiled
        applied_round = self.state.next_round - 1 if holds_state else -1
        self._drop_attempt()
        self._builds.give_up_all()
        self.state.restart()
        self.fetching = None
        self.training = Training(self.training.values, 0 if spoiled else self.training.support)
        self._enter(applied_round)

    def turn_nan(self) -> bool:
        """Find NaN in the parameters; tell whether it has any."""
        found = self.state.started and self.state.completed is None and self.exit_code is None
        if found:
            self.say(m.Leave("nan"))
            self._return(spoiled=True)
        return found

    def _finish(self) -> None:
        """Wait for joiners that fetch from here, then exit."""
        if self.transfers:
            self.later(0.05, self.advance)
            return
        self._exit()

    def _leave_drained(self) -> None:
        self.say(m.Leave("drain"))
        self.drained = True
        self._exit()

    def _step(self) -> None:
        """Train on a batch, or find that there is none."""
        state, training = self.state, self.training
        if not (state.weighted or training.counts):
            if state.assignment is None:
                return
            training.counts = state.assignment.weighted
            if not training.counts:
                self._enter_step(idle=True)
                return
        if not training.registered:
            training.registered = True
            batches, epochs = self.job.batches
            self.say(m.Register((m.Track("", batches),), epochs))
        leases = state.leases(0)
        if len(leases.batches) < LEASE_DEPTH and not leases.wanted and not leases.starved:
            leases.wanted = True
            self.say(m.Take(LEASE_DEPTH, 0))
        if leases.batches:
            batch, training.busy = leases.batches.popleft(), True
            seconds = self.slow.next_seconds(self.scheduler.random)
            self.later(seconds, lambda: self._trained(training, batch))
        elif not leases.wanted:
            self._enter_step(idle=True)

    def _trained(self, training: Training, batch: int) -> None:
        self.slow.stepped()
        if training is not self.training:
            return
        training.busy = False
        noise = self.scheduler.random.uniform
        training.values = [v + noise(-0.1, 0.1) for v in training.values]
        training.consumed += (batch,)
        training.consumed_support |= self.job.observer.instance(batch)
        self._saver.stepped()
        self._enter_step(idle=False)

    def _enter_step(self, *, idle: bool) -> None:
        self.training.stepped, self.training.idle = True, idle
        self.training.step_round = self.state.next_round
        self.advance()

    def _synchronise(self) -> None:
        """Wait for the round to end, one way or the other."""
        state, training = self.state, self.training
        attempt = training.attempt
        if attempt is not None and not state.is_current(attempt.assign):
            self._drop_attempt()
            attempt = None
        if state.next_round != training.step_round:
            training.stepped = False
            self._step()
            return
        if attempt is None and state.assignment is not None:
            attempt = training.attempt = self._attempt(state.assignment)
        if attempt is not None:
            self._work(attempt)

    def _attempt(self, assign: m.Assign) -> Attempt:
        training = self.training
        known = self._terms.get((assign.round, assign.attempt))
        # Nobody has sent a provisional one; one of its number may be known of an earlier life.
        term = self.state.member_since if known is None or assign.cause == CAUSE else known
        self.job.observer.begun(self.key, term, assign, training.values)
        support = training.support | training.consumed_support
        return Attempt(assign, term, list(training.values), support)

    def _work(self, attempt: Attempt) -> None:
        assign = attempt.assign
        alone = self.state.may_give_up(assign)
        if attempt.operating or attempt.reported:
            if alone and not attempt.bounded:
                attempt.bounded = True
                seconds = 0.0 if attempt.reported else PROVISIONAL_SECONDS
                self.later(seconds, lambda: self._give_up(attempt))
            return
        if attempt.stage < len(assign.stages):
            stage = assign.stages[attempt.stage]
            build = self._builds.build(stage, provisional=assign.cause == CAUSE)
            if build.failed:
                self._report(attempt, wire.NOT_BUILT)
            if not build.ready:
                if alone:
                    self._give_up(attempt)
                else:
                    self._announce_build(attempt)
                return
        if attempt.stage < len(assign.stages):
            self._operate(attempt, assign.stages[attempt.stage])
        elif not assign.strict or self.state.is_committed(assign):
            self._apply(attempt)
        elif not attempt.confirmed:
            attempt.confirmed = True
            self.say(m.Confirm(assign.round, assign.attempt, self.training.consumed))

    def _give_up(self, attempt: Attempt) -> None:
        """While nobody leads, leave the group of an attempt that cannot be completed."""
        if self.training.attempt is attempt and self.state.give_up(attempt.assign):
            for stage in attempt.assign.stages:
                self._builds.give_up_alone(stage.communicator)
            self._drop_attempt()
            self.advance()

    def _announce_build(self, attempt: Attempt) -> None:
        if not attempt.announced and not attempt.waits:
            attempt.waits = True
            self._arrive(attempt, building=True)

    def _announce_operation(self, attempt: Attempt, number: int) -> None:
        """Say that an operation runs, unless it is over soon."""
        current = self.training.attempt is attempt and attempt.stage == number
        if current and attempt.operating and not attempt.announced:
            attempt.announced = True
            self._arrive(attempt, building=False)

    def _arrive(self, attempt: Attempt, *, building: bool) -> None:
        assign = attempt.assign
        self.say(m.Arrive(assign.round, assign.attempt, self.training.idle, building))

    def _operate(self, attempt: Attempt, stage: m.Stage) -> None:
        attempt.operating = True

        def done(total: Numbers, support: int) -> None:
            attempt.operating, attempt.values, attempt.support = False, total, support
            attempt.stage += 1
            self.advance()

        def failed() -> None:
            self._report(attempt, "operation")

        scaled = [stage.weight * v if stage.weight else 0.0 for v in attempt.values]
        token = (attempt.assign.round, attempt.assign.attempt)
        number = attempt.stage
        self.later(ARRIVE_AFTER_SECONDS, lambda: self._announce_operation(attempt, number))
        self.later(OPERATION_TIMEOUT_SECONDS, lambda: self._time_out_operation(attempt, number))
        support = attempt.support if stage.weight else 0
        part = Party(self, scaled, stage.weight, support, done, failed, self._is_leaderless)
        self.job.fabric.start(stage.communicator, stage.members, token, self.key, part)

    @property
    def _is_leaderless(self) -> bool:
        """Whether its coordinator is lost, or a new one has not adopted it yet."""
        return self.state.leaderless or self.state.term != self.state.member_since

    def _time_out_operation(self, attempt: Attempt, number: int) -> None:
        if attempt.operating and attempt.stage == number:
            self._report(attempt, wire.TIMED_OUT)

    def _apply(self, attempt: Attempt) -> None:
        applied = self.state.apply(attempt.assign, self.training.consumed)
        if applied is None:
            return
        self.training.values, self.training.consumed = attempt.values, ()
        self.training.support, self.training.consumed_support = attempt.support, 0
        self.training.attempt, self.training.stepped = None, False
        self.say(applied)
        self.job.observer.committed(attempt.term, applied.batches)
        self.final_state = self.training.ended = attempt.assign.kind == "final"
        result = (attempt.values, attempt.support)
        self.job.observer.applied(self.key, attempt.term, attempt.assign, result)
        self._saver.applied(attempt.assign)
        self.advance()

    def _report(self, attempt: Attempt, what: str) -> None:
        assign = attempt.assign
        if not attempt.reported and self.training.attempt is attempt:
            attempt.reported = True
            if self.state.is_current(assign):
                self.say(m.Failed(assign.round, assign.attempt, what))
                self.advance()

    def _drop_attempt(self) -> None:
        attempt, self.training.attempt = self.training.attempt, None
        if attempt is not None:
            for stage in attempt.assign.stages:
                self._builds.give_up(stage.communicator)
