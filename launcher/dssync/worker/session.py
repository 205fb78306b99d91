"""One member's life in a job: enter, fetch, rounds, bench, leave.

Holds together the link, the communicators, the buckets and the round engine, and does the
training thread's chores: a joiner's snapshot is taken here, at a boundary, by whoever waits.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from dssync.control import messages as m
from dssync.control.view import Member
from dssync.errors import ModelError, UsageError
from dssync.schedule import Settings
from dssync.worker.buckets import Buckets, averaged
from dssync.worker.communicator import Communicator, Communicators
from dssync.worker.gloo import GlooBackend, GlooSettings
from dssync.worker.link import Link, Setup
from dssync.worker.measure import Measure
from dssync.worker.payload import Payload
from dssync.worker.reaper import Reaper
from dssync.worker.round import Clock, Result, RoundEngine
from dssync.worker.snapshots import Snapshots
from dssync.worker.store import Mailbox
from dssync.worker.transfer import FetchedState

CLOSE_SECONDS = 10.0
"""How long a member that leaves goes on serving its state."""
REAP_SECONDS = 2.0
NOT_FINITE_LIMIT = 3


@dataclass(frozen=True)
class SyncOptions:
    """How this script synchronises: its arguments, else the launcher's flags."""

    every: int
    group_size: int
    mode: str
    commit: str
    seed: int

    @classmethod
    def of(
        cls, setup: Setup, every: int | None, group_size: int | None, mode: str | None
    ) -> "SyncOptions":
        """Merge and check.

        Raises:
            UsageError: ``every`` is below 1.
            ScheduleError: the group size or the mode does not exist.
        """
        chosen = setup.every if every is None else every
        if chosen < 1:
            raise UsageError(f"GroupSync got every={chosen}: at least 1 optimizer step")
        settings = Settings(mode or setup.mode, group_size or setup.group_size, setup.seed)
        return cls(chosen, settings.group_size, settings.mode, setup.commit, setup.seed)

    @property
    def message(self) -> m.SyncSettings:
        """As the coordinator compares it."""
        return m.SyncSettings(self.mode, self.group_size, self.every, self.commit, self.seed)


@dataclass(frozen=True)
class Outcome:
    """What a round did at this member."""

    round: int
    attempts: int
    """0 if the first attempt was committed."""
    result: str
    """``committed``, ``solo`` or ``skipped``."""
    members: tuple[str, ...]
    """Who averaged with this member in the last stage, itself included."""
    kind: str
    view: int
    seconds: float
    """Wall time of the round."""


class MemberSession:
    """The member behind a ``GroupSync``."""

    def __init__(self, link: Link, options: SyncOptions, payload: Payload) -> None:
        self.link = link
        self.options = options
        self.joined = False
        self.left = False
        self.world_size = 1
        self.is_first = True
        self.last: Outcome | None = None
        self._payload = payload
        self._reaper = Reaper()
        self._mailbox = Mailbox(link.send_blob)
        backend = GlooBackend(link.setup.member, self._reaper, GlooSettings(host=link.setup.host))
        self._communicators = Communicators(backend, self._mailbox, self._reaper)
        self._measure = Measure(link.push_metrics, Member.parse(link.setup.member).local_rank)
        self.consumed: list[tuple[int, int]] = []
        """Batches trained on since the last committed round, with the generation of the lease."""
        self._not_finite = 0
        self._snapshots = Snapshots(link, payload)
        link.listen(self)

    # --- called by the link's thread --------------------------------------------------------

    def on_assign(self, assign: m.Assign) -> None:
        """Build the communicators of an assignment ahead; drop those that no round uses."""
        for communicator in assign.retire:
            self._communicators.retire(communicator)
        for stage in assign.stages:
            if len(stage.members) > 1:
                self._communicators.prepare(Communicator(stage.communicator, stage.members))

    def on_abandon(self, assign: m.Assign) -> None:
        """Release what an attempt has under way."""
        for stage in assign.stages:
            self._communicators.abandon(stage.communicator)

    def on_blob(self, communicator: str, key: str, value: bytes) -> None:
        """Take a mate's rendezvous data."""
        self._mailbox.deliver(communicator, key, value)

    # --- waiting ----------------------------------------------------------------------------

    def wait(self, ready: Callable[[], bool]) -> None:
        """Wait until ``ready`` holds (evaluated under the condition); do chores meanwhile."""
        while True:
            with self.link.condition:
                self.link.condition.wait_for(lambda: ready() or self._snapshots.asked)
                if ready():
                    return
            self._snapshots.take()

    def do_chores(self) -> None:
        """Take a snapshot if a joiner asked for one. Call only where nothing trains."""
        if self._snapshots.asked:
            self._snapshots.take()

    # --- joining ----------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether this member trains no further."""
        state = self.link.state
        return self.left or state.completed is not None or state.leaving

    @property
    def has_leases(self) -> bool:
        """Whether there are batches to draw, or there may be when asked again."""
        return not self.link.state.starved

    def join(self) -> None:
        """Enter the job and get its state, unless that was done.

        Raises:
            ModelError: the job refuses this model.
        """
        if self.joined:
            return
        self.joined = True
        self._payload.check()
        chosen = averaged(self._payload.model)
        self._frozen = chosen.frozen
        self._lines = chosen.lines
        self._buckets = Buckets(chosen.tensors)
        self._engine = RoundEngine(self.link, self._communicators, self._buckets, self.wait)
        self._snapshots.serve()
        self._enter()

    def _enter(self) -> None:
        state = self.link.state
        started = time.monotonic()
        self.link.send(m.Enter(self._lines, self.options.message, self._snapshots.address))
        while not (state.started or self._ended):
            self.wait(lambda: state.started or state.fetch is not None or self._ended)
            if state.fetch is not None and not state.started:
                self._fetch(state.fetch)
        if state.refused is not None:
            raise ModelError(state.refused)
        self._measure.observe(
            "dssync_join_duration_seconds", time.monotonic() - started, phase="admit"
        )
        if state.started and not state.weighted:
            # The mates' values come before any training of this member could count.
            self.sync(idle=True)

    @property
    def _ended(self) -> bool:
        state = self.link.state
        return bool(state.refused) or state.completed is not None or state.leaving

    def _fetch(self, fetch: m.Fetch) -> None:
        """Get a donor's state; the coordinator sends this member elsewhere if it is lost."""
        state, started = self.link.state, time.monotonic()
        fetched = FetchedState(fetch.address, bytes.fromhex(self.link.setup.token), self.link.wake)
        self.wait(lambda: fetched.done or state.fetch is not fetch or self._ended)
        if not fetched.done:
            fetched.give_up()
            return
        with self.link.condition:
            if state.fetch is fetch:
                state.fetch = None
        if fetched.error is not None:
            self.link.send(m.FetchFailed(fetch.donor, fetched.error))
            return
        self._payload.load(fetched.state)
        self._measure.increment(
            "dssync_state_transfer_bytes_total", fetched.size_bytes, direction="received"
        )
        self._measure.observe(
            "dssync_join_duration_seconds", time.monotonic() - started, phase="state"
        )
        self.link.send(m.Loaded(fetch.donor))

    def _enter_again(self, reason: str | None) -> None:
        """Take part again with a donor's state, in place.

        Args:
            reason: why this member leaves; None if it was put out of the view.
        """
        if reason is not None:
            self.link.send(m.Leave(reason))
        with self.link.condition:
            self.link.state.restart()
        # What it held is leased to others now.
        self.consumed.clear()
        self._enter()

    # --- rounds -----------------------------------------------------------------------------

    def sync(self, idle: bool) -> None:
        """Take part in the next round; what was consumed is committed with it.

        Raises:
            ModelError: the values are NaN or Inf again and again, or a frozen parameter trains.
        """
        state = self.link.state
        self.wait(lambda: state.assignment is not None or self._interrupted)
        if state.refused is not None:
            raise ModelError(state.refused)
        if state.benched is not None:
            self._enter_again(None)
        elif not self.over:
            self._check_frozen()
            started = time.monotonic()
            self._take_part(state.next_round, idle, started)
            self._measure.observe("dssync_sync_duration_seconds", time.monotonic() - started)
            self._measure.push_if_due()

    @property
    def _interrupted(self) -> bool:
        return self.link.state.benched is not None or self._ended

    def _take_part(self, number: int, idle: bool, started: float) -> None:
        """Run the attempts of one round until one is committed or the round goes on without us."""
        state, engine = self.link.state, self._engine
        while engine is not None:
            self.wait(
                lambda: (
                    state.assignment is not None or state.next_round != number or self._interrupted
                )
            )
            with self.link.condition:
                assign = state.assignment if state.next_round == number else None
            if assign is None:
                self._record(number, None, "skipped", started)
                return
            clock = Clock()
            result = engine.run(assign, self._committable(), idle, clock)
            if result is Result.NOT_FINITE:
                self._replace_values()
                return
            if result is not Result.ABANDONED:
                self._committed(assign, result, started, clock)
                return

    def _committed(self, assign: m.Assign, result: Result, started: float, clock: Clock) -> None:
        self.consumed.clear()
        self._not_finite = 0
        self.world_size = assign.world_size
        self.is_first = assign.first == self.link.setup.member
        self._record(assign.round, assign, result.value, started)
        for phase, seconds in vars(clock).items():
            self._measure.observe("dssync_sync_phase_duration_seconds", seconds, phase=phase)
        if result is Result.COMMITTED:
            size = self._buckets.size_bytes
            self._measure.increment("dssync_sync_bytes_total", size)
        if assign.kind == "final":
            self.wait(lambda: self._interrupted)

    def _record(self, number: int, assign: m.Assign | None, result: str, started: float) -> None:
        attempts = assign.attempt if assign is not None else 0
        members = assign.stages[-1].members if assign is not None and assign.stages else ()
        self.last = Outcome(
            round=number,
            attempts=attempts,
            result=result,
            members=members,
            kind=assign.kind if assign is not None else "",
            view=assign.view if assign is not None else 0,
            seconds=time.monotonic() - started,
        )
        shown = "retried" if attempts and result == "committed" else result
        self._measure.increment("dssync_sync_rounds_total", result=shown)
        self._measure.set("dssync_round", number)
        self._measure.set("dssync_group_size", max(1, len(members)))

    def _replace_values(self) -> None:
        self._not_finite += 1
        if self._not_finite >= NOT_FINITE_LIMIT:
            raise ModelError(
                f"the parameters were NaN or Inf in {self._not_finite} rounds in a row although "
                "they were replaced by a mate's: lower the learning rate or check the data"
            )
        self._enter_again("nan")

    def _committable(self) -> tuple[int, ...]:
        """Return the batches consumed under leases that still hold."""
        generation = self.link.state.generation
        return tuple(number for held_in, number in self.consumed if held_in == generation)

    def _check_frozen(self) -> None:
        for name, parameter in self._frozen:
            if parameter.requires_grad:
                raise ModelError(
                    f"parameter {name!r} was frozen when training began and trains now: it would "
                    "not be averaged; unfreeze it before the first step, or train in two runs"
                )

    # --- the end ----------------------------------------------------------------------------

    def leave(self, reason: str) -> None:
        """Leave the job, unless it is over."""
        if self.joined and not self.left:
            self.left = True
            if self.link.state.completed is None:
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
        self._snapshots.close()
        self._measure.push_if_due(now=True)
        self._communicators.close_all(REAP_SECONDS)
