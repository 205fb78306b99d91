"""One member's life in a job: enter, rounds, bench, leave.

Ties together the link, the communicators, the buckets and the round engine, and does the
training thread's chores: a joiner's snapshot is taken here, at a boundary, by whoever waits.
"""

import time
from collections.abc import Callable

from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.view import Member
from dssync.control.viewlog import Point
from dssync.errors import ModelError
from dssync.worker.buckets import HOST, Buckets, averaged
from dssync.worker.draws import Leased
from dssync.worker.entrance import Entrance
from dssync.worker.journal import Journal
from dssync.worker.link import Link
from dssync.worker.measure import Measure
from dssync.worker.moments import Moments
from dssync.worker.options import SyncOptions
from dssync.worker.outcome import Outcome, record
from dssync.worker.payload import Payload
from dssync.worker.places import Places
from dssync.worker.rendezvous import Rendezvous
from dssync.worker.round import Chores, Clock, Result, RoundEngine
from dssync.worker.saver import Checkpoint, Saver, Watch
from dssync.worker.snapshots import Snapshots
from dssync.worker.transport import Machine, staging_device

CLOSE_SECONDS = 10.0
"""How long a member that leaves goes on serving its state."""
NOT_FINITE_LIMIT = 3


class MemberSession:
    """The member behind a ``GroupSync``."""

    def __init__(
        self,
        link: Link,
        options: SyncOptions,
        payload: Payload,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.link = link
        self.options = options
        self.world_size = 1
        self.last: Outcome | None = None
        self.listeners: list[Callable[[Outcome], None]] = []
        """Called after each round, by the training thread."""
        self.consumed: list[tuple[int, int]] = []
        """Batches trained on since the last committed round, with the generation of the lease."""
        self.steps = 0
        """Optimizer steps of this process."""
        self._untold: list[tuple[Outcome, Clock]] = []
        """Rounds that the metrics have not seen."""
        self.joined = False
        self.left = False
        self._payload = payload
        self._applied_round = -1
        # Nobody else would speak for the job under plain ``python``.
        self._first, self._ended = not link.setup.host, False
        self._not_finite = 0
        self._measure = Measure(link.push_metrics, Member.parse(link.setup.member).local_rank)
        tensors = averaged(payload.model).tensors
        machine = Machine.look(link.setup.workers)
        self._device = staging_device(
            link.setup.backend, [each.device for each in tensors], machine
        )
        self._rendezvous = Rendezvous(link, self._device, self._measure)
        journal = self._journal = Journal(link.setup.member, link.setup.view_log)
        self.draw = Leased(link, self.wait_for_data, journal).draw
        self._snapshots = Snapshots(link, payload, self._measure, journal, self._now)
        watch = Watch(self._measure, journal)
        self._saver = Saver(link, payload, checkpoint, options.every, watch)
        self._entrance = Entrance(link, payload, self._measure, self.wait, self._saver)

    # --- waiting ----------------------------------------------------------------------------

    def wait(self, ready: Callable[[], bool]) -> None:
        """Wait until ``ready`` holds (evaluated under the condition); do chores meanwhile."""
        while True:
            with self.link.condition:
                if ready():
                    return
            self.link.send_held()
            with self.link.condition:
                self.link.condition.wait_for(lambda: ready() or self._snapshots.asked)
                if ready():
                    return
            self._snapshots.take()

    def wait_for_data(self, ready: Callable[[], bool]) -> None:
        """Wait like ``wait``; who is put out of the view meanwhile enters again and returns."""
        state = self.link.state
        self.wait(lambda: ready() or state.benched is not None)
        if state.benched is not None and not self.link.ended:
            self._enter_again(self._applied_round)

    def do_chores(self) -> None:
        """Take a snapshot if a joiner asked for one. Call only where nothing trains."""
        if self._snapshots.asked:
            self._snapshots.take()

    # --- coming and going -------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether this member trains no further."""
        state = self.link.state
        return self.left or state.completed is not None or state.leaving

    @property
    def is_first(self) -> bool:
        """Whether this member speaks for the job; whoever leaves before its end does not."""
        return self._first and (self._ended or not self.link.state.leaving)

    @property
    def has_leases(self) -> bool:
        """Whether there are batches to draw, or there may be when asked again."""
        return not (self.link.state.starved or self.link.state.over)

    def join(self) -> None:
        """Enter the job and get its state; nothing if this member is in it or it is over.

        Raises:
            ModelError: the job refuses this model.
        """
        if not self.joined:
            self._prepare()
            self.joined = True
            self._enter()
        elif self.left and not self.link.ended:
            self.left = False
            self._enter_again(self._applied_round)

    def leave(self, reason: str) -> None:
        """Leave the job, unless it is over; ``join`` brings this member back."""
        # A mate may still be in the last round: without this member's word the news of its exit
        # would cost the mate a retry.
        self.link.send_held()
        if self.joined and not self.left:
            self._journal.left(self.over, lambda: self._buckets.digest)
            self.left = True
            if not self.link.ended:
                self.link.send(m.Leave(reason))

    def close(self) -> None:
        """Leave; finish transfers under way; give everything back."""
        self.leave("leave")
        give_up = time.monotonic() + CLOSE_SECONDS
        while self._snapshots.busy and time.monotonic() < give_up:
            with self.link.condition:
                self.link.condition.wait_for(
                    lambda: self._snapshots.asked or not self._snapshots.busy,
                    give_up - time.monotonic(),
                )
            self.do_chores()
        self._saver.close()
        self._snapshots.close()
        self._push(now=True)
        self._rendezvous.close()

    def _prepare(self) -> None:
        self._payload.check()
        chosen = averaged(self._payload.model)
        self._lines = chosen.lines
        self._places = Places(self._payload.model, chosen)
        self._buckets = Buckets(chosen.tensors, self._device)
        self._moments = Moments(self._payload.optimizer, self._device)
        self._engine = RoundEngine(
            self.link,
            self._rendezvous.communicators,
            self._buckets,
            Chores(self.wait, self._saver.foresee),
            self._journal,
            self._moments,
        )
        self._snapshots.serve()
        self._journal.began(self._sync_settings, self.link.setup.workers)

    @property
    def _sync_settings(self) -> m.SyncSettings:
        backend = "gloo" if self._device == HOST else "nccl"
        return replace(self.options.message, backend=backend)

    def _now(self) -> Point:
        return Point(self.link.state.generation, self.steps, self._applied_round)

    def _enter(self, applied_round: int = -1) -> None:
        state, entrance = self.link.state, self._entrance
        hello = m.Enter(
            self._lines,
            self._sync_settings,
            self._snapshots.address,
            applied_round,
            self._saver.resumes,
        )
        entrance.enter(hello)
        self._journal.entered(entrance.source, entrance.taken, state.generation, state.next_round)
        if self.link.state.started and not self.link.state.weighted:
            # The mates' values come before any training of this member could count.
            started = time.monotonic()
            self.sync(idle=True)
            seconds = time.monotonic() - started
            self._measure.observe("dssync_join_duration_seconds", seconds, phase="first_round")
            self._idle_until_weighted()

    def _idle_until_weighted(self) -> None:
        """Take part without training in the rounds that were frozen before this member counts."""
        state = self.link.state
        generation = state.generation
        while True:
            self.wait(lambda: state.assignment is not None or self._interrupted)
            with self.link.condition:
                assign = state.assignment
            if assign is None or assign.weighted or state.generation != generation:
                return
            self.sync(idle=True)

    def _enter_again(self, applied_round: int) -> None:
        """Take part again with a donor's state, in place.

        Args:
            applied_round: the last round in the values here; -1 if they are spoiled.
        """
        with self.link.condition:
            self.link.state.restart()
        # What it held is leased to others now, and its mates have given its communicators up.
        self.consumed.clear()
        # Of batches that others train on: they would go into the next step.
        self._payload.optimizer.zero_grad()
        self._rendezvous.release()
        self._enter(applied_round)

    # --- rounds -----------------------------------------------------------------------------

    def sync(self, idle: bool) -> None:
        """Take part in the next round; what was consumed is committed with it.

        Raises:
            ModelError: the values are NaN or Inf again and again, or the model has become another.
        """
        try:
            self._sync(idle)
        except BaseException:
            # An interrupt, say. The mates go on at once; ``join`` brings this member back.
            self.leave("interrupt")
            raise

    def _sync(self, idle: bool) -> None:
        state, started = self.link.state, time.monotonic()
        self._tell_moments()
        self.wait(lambda: state.assignment is not None or self._interrupted)
        if state.refused is not None:
            raise ModelError(state.refused)
        if state.benched is not None:
            self._enter_again(self._applied_round)
        elif not self.over:
            self._places.follow(self._buckets)
            self._take_part(state.next_round, idle, started)
            self._push()

    def _tell_moments(self) -> None:
        """Say what of the optimizer's state can be averaged, when that has changed."""
        state, layout = self.link.state, self._moments.layout
        if layout != state.moments:
            with self.link.condition:
                state.moments = layout
            self.link.send(m.Moments(layout))

    @property
    def _interrupted(self) -> bool:
        return self.link.state.benched is not None or self.link.ended

    def _take_part(self, number: int, idle: bool, started: float) -> None:
        """Run the attempts of one round until one is committed or the round goes on without us."""
        result = Result.ABANDONED
        while result is Result.ABANDONED:
            assign = self._await_assignment(number)
            if assign is None:
                self._journal.skipped(number, idle)
                self._tell(Outcome.skipped(number, time.monotonic() - started), Clock())
                return
            clock = Clock(assign=time.monotonic() - started)
            with self._rendezvous.communicators.held_back():
                result = self._engine.run(assign, self._committable(), idle, clock)
            if result is Result.NOT_FINITE:
                self._replace_values()
            elif result is not Result.ABANDONED:
                if not idle:
                    self._check_trained(result)
                self._committed(assign)
                seconds = time.monotonic() - started
                own = self.link.setup.member
                self._tell(Outcome.of(assign, result.value, own, seconds), clock)

    def _await_assignment(self, number: int) -> m.Assign | None:
        """Return what to do in a round; None if it went on without this member."""
        state = self.link.state
        self.wait(
            lambda: state.assignment is not None or state.next_round != number or self._interrupted
        )
        with self.link.condition:
            return state.assignment if state.next_round == number else None

    def _committed(self, assign: m.Assign) -> None:
        self.consumed.clear()
        self._applied_round = assign.round
        self.world_size = assign.world_size
        self._first, self._ended = assign.first == self.link.setup.member, assign.kind == "final"
        self._saver.after(assign)
        if assign.kind == "final":
            self.wait(lambda: self._interrupted)

    def _tell(self, outcome: Outcome, clock: Clock) -> None:
        self.last = outcome
        self._untold.append((outcome, clock))
        for listener in self.listeners:
            listener(outcome)

    def _push(self, now: bool = False) -> None:
        if now or self._measure.due:
            # Not in each round: that would be a tenth of what this member itself does in one.
            for outcome, clock in self._untold:
                record(self._measure, outcome, clock, self._buckets.size_bytes)
            self._untold.clear()
            self._rendezvous.measure()
            if self.joined:
                hits, misses = self._engine.cache_hits, self._engine.cache_misses
                self._measure.total("dssync_communicator_cache_hits_total", hits)
                self._measure.total("dssync_communicator_cache_misses_total", misses)
            self._measure.push()

    def _check_trained(self, result: Result) -> None:
        """Look at values that no mate would have seen; under plain ``python`` nobody asked."""
        if result is Result.SOLO and self.link.setup.host:
            self._buckets.stage(1.0)
            if not self._buckets.finite(self._buckets.total()):
                self._count_not_finite()
                return
        self._not_finite = 0

    def _replace_values(self) -> None:
        self._count_not_finite()
        self.link.send(m.Leave("nan"))
        self._enter_again(-1)

    def _count_not_finite(self) -> None:
        self._not_finite += 1
        if self._not_finite >= NOT_FINITE_LIMIT:
            raise ModelError(
                f"the parameters were NaN or Inf after {self._not_finite} trained rounds in a "
                "row, whatever mates had to give: lower the learning rate or check the data"
            )

    def _committable(self) -> tuple[int, ...]:
        """Return the batches consumed under leases that still hold."""
        generation = self.link.state.generation
        return tuple(number for held_in, number in self.consumed if held_in == generation)
