"""A worker process: the real ``MemberState`` driven as the worker library drives it.

Two threads of a real worker are modelled. The link answers messages at once. The training thread
looks at the state between its steps and while it waits, in ``_advance``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.member import MemberState
from dssync.control.takeover import Adopt
from simulation import wire
from simulation.fabric import Fabric, Numbers, Party
from simulation.scheduler import Process, Scheduler
from simulation.violation import ViolationError

BUILD_TIMEOUT_SECONDS = 10.0
OPERATION_TIMEOUT_SECONDS = 20.0
ARRIVE_AFTER_SECONDS = 0.02
"""An operation that is over sooner is not announced."""
LEASE_DEPTH = 2


@dataclass
class Job:
    """What all workers of a run share, and the hooks of the observer."""

    scheduler: Scheduler
    fabric: Fabric
    sync: m.SyncSettings
    batches: tuple[int, int]
    """Per epoch, and epochs."""
    transfer: Callable[["Worker", str], None]
    on_attempt: Callable[[str, m.Assign, Numbers], None]
    on_apply: Callable[[str, m.Assign, Numbers], None]
    member_state: type[MemberState] = MemberState
    restarts: bool = True
    """Whether launchers start workers again; otherwise they have used their restarts up."""
    finished: list["Worker"] = field(default_factory=list)
    """Workers that saw the end of the job."""


@dataclass
class _Build:
    """A communicator at one member."""

    members: tuple[str, ...]
    ready: bool = False
    failed: bool = False


@dataclass
class Attempt:
    """The attempt that the training thread is in."""

    assign: m.Assign
    values: Numbers
    stage: int = 0
    waits: bool = False
    """It has said that it waits for a build."""
    announced: bool = False
    """It has said that its operations run."""
    operating: bool = False
    confirmed: bool = False
    reported: bool = False


@dataclass
class Training:
    """What the training thread keeps between rounds."""

    values: Numbers
    consumed: tuple[int, ...] = ()
    stepped: bool = False
    """It is inside ``sync.step()``."""
    step_round: int = -1
    idle: bool = False
    busy: bool = False
    registered: bool = False
    welcomed: bool = False
    counts: bool = False
    """Its values have weight in the next round."""
    attempt: Attempt | None = None


@dataclass
class Slowness:
    """How long this worker takes."""

    train_seconds: float = 0.05
    extra_seconds: float = 0.0
    """Added once, to the next step: a straggler."""


class Worker(Process):
    """One incarnation of one worker."""

    def __init__(self, job: Job, key: str, say: Callable[[str, m.FromMemberBody], None]) -> None:
        super().__init__(job.scheduler)
        self.job = job
        self.key = key
        self.slow = Slowness(job.scheduler.random.uniform(0.03, 0.08))
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
        self._builds: dict[str, _Build] = {}
        self._mailbox: dict[str, set[str]] = {}
        self._given_up: set[str] = set()

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

    def begin(self) -> None:
        self.later(self.scheduler.random.uniform(0.01, 0.3), self._enter)

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
        if isinstance(message, m.Blob):
            self._mailbox.setdefault(message.communicator, set()).add(message.key)
            self._finish_build(message.communicator)
        else:
            ended = [] if isinstance(message, m.Bench) else self.state.ended_by(message)
            for answer in self.state.handle(message):
                self._say(self.key, answer)
            for stage in (stage for assign in ended for stage in assign.stages):
                self._give_up(stage.communicator)
            if isinstance(message, Adopt):
                for communicator in list(self._builds):
                    self._give_up(communicator)
        if isinstance(message, m.Assign):
            for communicator in message.retire:
                self._retire(communicator)
            if self.state.known(message.round) is message:
                for stage in message.stages:
                    self._build(stage)
        self.advance()

    def _say(self, key: str, message: m.FromMemberBody) -> None:
        self.state.history.said(message)
        self._transmit(key, message)

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
        self.say(m.Enter(("w float32 3",), self.job.sync, f"{self.key}:0", applied_round))
        self.advance()

    def _return(self, *, spoiled: bool = False) -> None:
        """Come back as a joiner after a bench or a NaN."""
        holds_state = self.state.started and not spoiled
        applied_round = self.state.next_round - 1 if holds_state else -1
        self._drop_attempt()
        for communicator in list(self._builds):
            self._give_up(communicator)
        self.state.restart()
        self.fetching = None
        self.training = Training(self.training.values)
        self._enter(applied_round)

    def turn_nan(self) -> None:
        """Find NaN in the parameters."""
        if self.state.started and self.state.completed is None and self.exit_code is None:
            self.say(m.Leave("nan"))
            self._return(spoiled=True)

    def fetched(self, fetch_donor: str, values: Numbers, final: bool) -> None:
        """A transfer has ended well."""
        if self.fetching is None or self.fetching.donor != fetch_donor or self.state.started:
            return
        self.training.values, self.final_state = list(values), final
        self.say(m.Loaded(fetch_donor))

    def fetch_failed(self, donor: str) -> None:
        if self.fetching is not None and self.fetching.donor == donor:
            self.say(m.FetchFailed(donor, "connection lost"))

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
            seconds = self.slow.train_seconds * self.scheduler.random.uniform(0.8, 1.2)
            seconds, self.slow.extra_seconds = seconds + self.slow.extra_seconds, 0.0
            self.later(seconds, lambda: self._trained(training, batch))
        elif not leases.wanted:
            self._enter_step(idle=True)

    def _trained(self, training: Training, batch: int) -> None:
        if training is not self.training:
            return
        training.busy = False
        noise = self.scheduler.random.uniform
        training.values = [v + noise(-0.1, 0.1) for v in training.values]
        training.consumed += (batch,)
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
            attempt = training.attempt = Attempt(state.assignment, list(training.values))
            self.job.on_attempt(self.key, attempt.assign, training.values)
        if attempt is not None:
            self._work(attempt)

    def _work(self, attempt: Attempt) -> None:
        assign = attempt.assign
        if attempt.operating:
            return
        if attempt.stage < len(assign.stages):
            build = self._build(assign.stages[attempt.stage])
            if build.failed:
                self._report(attempt, "build")
            if not build.ready:
                self._announce_build(attempt)
                return
        if attempt.stage < len(assign.stages):
            self._operate(attempt, assign.stages[attempt.stage])
        elif not assign.strict or self.state.is_committed(assign):
            self._apply(attempt)
        elif not attempt.confirmed:
            attempt.confirmed = True
            self.say(m.Confirm(assign.round, assign.attempt, self.training.consumed))

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

        def done(total: Numbers) -> None:
            attempt.operating, attempt.values = False, total
            attempt.stage += 1
            self.advance()

        def failed() -> None:
            self._report(attempt, "operation")

        scaled = [stage.weight * v if stage.weight else 0.0 for v in attempt.values]
        token = (attempt.assign.round, attempt.assign.attempt)
        number = attempt.stage
        self.later(ARRIVE_AFTER_SECONDS, lambda: self._announce_operation(attempt, number))
        self.later(OPERATION_TIMEOUT_SECONDS, lambda: self._time_out_operation(attempt, number))
        part = Party(self, scaled, done, failed)
        self.job.fabric.start(stage.communicator, stage.members, token, self.key, part)

    def _time_out_operation(self, attempt: Attempt, number: int) -> None:
        if attempt.operating and attempt.stage == number:
            self._report(attempt, "operation timed out")

    def _apply(self, attempt: Attempt) -> None:
        applied = self.state.apply(attempt.assign, self.training.consumed)
        if applied is None:
            return
        self.training.values, self.training.consumed = attempt.values, ()
        self.training.attempt, self.training.stepped = None, False
        self.say(applied)
        self.final_state = attempt.assign.kind == "final"
        self.job.on_apply(self.key, attempt.assign, attempt.values)
        self.advance()

    def _report(self, attempt: Attempt, what: str) -> None:
        assign = attempt.assign
        if not attempt.reported and self.training.attempt is attempt:
            attempt.reported = True
            if self.state.is_current(assign):
                self.say(m.Failed(assign.round, assign.attempt, what))

    def _drop_attempt(self) -> None:
        attempt, self.training.attempt = self.training.attempt, None
        if attempt is not None:
            for stage in attempt.assign.stages:
                self._give_up(stage.communicator)

    # --- communicators ------------------------------------------------------------------------

    def _build(self, stage: m.Stage) -> _Build:
        known = self._builds.get(stage.communicator)
        if known is not None:
            return known
        build = self._builds[stage.communicator] = _Build(stage.members)
        if stage.communicator in self._given_up:
            raise ViolationError(f"{self.key} is to build {stage.communicator} a second time")
        self._say(self.key, m.Blob(stage.communicator, self.key, ""))
        self.later(BUILD_TIMEOUT_SECONDS, lambda: self._time_out(build))
        self._finish_build(stage.communicator)
        return build

    def _time_out(self, build: _Build) -> None:
        build.failed = not build.ready
        self.advance()

    def _finish_build(self, communicator: str) -> None:
        build = self._builds.get(communicator)
        blobs = self._mailbox.get(communicator, set()) | {self.key}
        if build is not None and not build.ready and blobs.issuperset(build.members):
            self.later(self.scheduler.random.uniform(0.001, 0.1), lambda: self._built(build))

    def _built(self, build: _Build) -> None:
        build.ready = not build.failed
        self.advance()

    def _retire(self, communicator: str) -> bool:
        """Destroy a communicator when its last operation is over."""
        self._given_up.add(communicator)
        self._mailbox.pop(communicator, None)
        return self._builds.pop(communicator, None) is not None

    def _give_up(self, communicator: str) -> None:
        """Release what is under way on a communicator."""
        if self._retire(communicator):
            self.job.fabric.leave(communicator, self.key)
