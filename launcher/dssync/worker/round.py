"""One attempt of one round: stage, sum, commit, apply.

Who takes part comes with the assignment, when it starts is the caller's, what is sent is in the
buckets, and how it is merged is `Buckets.apply`: four separate things, so that overlapped and
late rounds can change one of them.

For its first 20 ms an operation is waited for alone, inside gloo: most end in that time, and waking
a thread for each cost more (docs/decisions/2026-11-21-overhead-of-a-round.md). After that the
training thread waits for operations, for news of the membership and for joiners together, and
walks away from an attempt that no longer stands: the link's thread has then already answered and
released the communicators.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import partial

import torch
from msgspec.structs import replace

from dssync.control import messages as m
from dssync.errors import BuildCancelledError, CommunicatorError
from dssync.worker.buckets import Buckets
from dssync.worker.communicator import (
    Communicator,
    Communicators,
    Group,
    Operation,
    Pending,
)
from dssync.worker.journal import Journal
from dssync.worker.link import Link
from dssync.worker.moments import Moments

ARRIVE_AFTER_SECONDS = 0.02
"""Operations that take longer are announced; small beside the shortest deadline."""
PROVISIONAL_SECONDS = 20.0
"""While nobody leads, mates have this long to come; as in the first rounds under a coordinator."""


class Result(Enum):
    """How an attempt ended at this member."""

    COMMITTED = "committed"
    SOLO = "solo"
    """Nobody was left to average with; the values are kept."""
    ABANDONED = "abandoned"
    """The attempt no longer stands; the next one follows, or the round was skipped."""
    NOT_FINITE = "not_finite"
    """This member's values hold NaN or Inf; nothing was sent."""


@dataclass
class Clock:
    """Seconds spent in the phases of one attempt."""

    assign: float = 0.0
    stage: float = 0.0
    build: float = 0.0
    allreduce: float = 0.0
    commit: float = 0.0
    apply: float = 0.0


class _Operations:
    """The all-reduces of one stage: waited for in turn, or counted down from any thread."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._started: list[Operation] = []
        self.error: Exception | None = None

    def start(self, group: Group, buckets: Iterable[torch.Tensor]) -> None:
        """Start a sum for each bucket."""
        try:
            for bucket in buckets:
                self._started.append(group.allreduce(bucket))
        except CommunicatorError as error:
            self.error = error

    @property
    def pending(self) -> int:
        """Operations that have not ended, as far as this was told."""
        return len(self._started)

    @property
    def over(self) -> bool:
        """Whether all have ended, or one has failed."""
        return not self._started or self.error is not None

    @property
    def succeeded(self) -> bool:
        """Whether all have ended well."""
        return not self._started and self.error is None

    def end_within(self, seconds: float) -> bool:
        """Wait a moment; tell whether they were over in it."""
        give_up = time.monotonic() + seconds
        while not self.over:
            left = give_up - time.monotonic()
            try:
                if left <= 0 or not self._started[0].wait(left):
                    return False
            except CommunicatorError as error:
                self.error = error
            del self._started[0]
        return True

    def tell(self) -> None:
        """Have the ends wake whoever waits on the link's condition; does nothing twice."""
        for operation in list(self._started):
            operation.when_done(partial(self._done, operation))

    def _done(self, operation: Operation, error: Exception | None) -> None:
        with self._link.condition:
            self._started.remove(operation)
            self.error = self.error or error
            if self.over:
                self._link.condition.notify_all()


@dataclass(frozen=True)
class Chores:
    """What the training thread does in a round beside the round."""

    wait: Callable[[Callable[[], bool]], None]
    """Waits until a predicate holds; serves joiners meanwhile."""
    foresee: Callable[[m.Assign], None]
    """Prepares what comes after the round; called when a sum of it is under way."""


class RoundEngine:
    """Runs attempts for one member.

    Args:
        link: the member's state and messages.
        communicators: built ahead by the link's handlers.
        buckets: what is averaged.
        chores: of the training thread.
        journal: notes what goes into sums and what is applied.
        moments: of the optimizer; averaged with the buckets where an assignment says so.
    """

    def __init__(
        self,
        link: Link,
        communicators: Communicators,
        buckets: Buckets,
        chores: Chores,
        journal: Journal,
        moments: Moments,
    ) -> None:
        self._link = link
        self._journal = journal
        self._communicators = communicators
        self._buckets = buckets
        self._wait = chores.wait
        self._foresee = chores.foresee
        self._moments = moments
        self.cache_hits = 0
        self.cache_misses = 0
        """Stages whose communicator had still to be built when it was needed."""

    def run(self, assign: m.Assign, batches: tuple[int, ...], idle: bool, clock: Clock) -> Result:
        """Run one attempt to its end.

        Args:
            assign: what to do.
            batches: consumed since the last committed round; committed with this one.
            idle: nothing was trained on, so the arrival starts no deadline.
            clock: receives the seconds of each phase.
        """
        term = self._link.state.term
        if not assign.stages:
            self._journal.attempt(term, assign, idle, 0.0)
            # Without mates, too: nobody else could tell that a member that is lost had applied it.
            decided = not assign.strict or self._confirm(assign, batches)
            return self._commit(assign, batches, None) if decided else Result.ABANDONED
        started = time.monotonic()
        buckets = self._buckets
        if assign.moments not in ("", self._moments.layout):
            # It changed after the round was frozen. A sum of other sizes than the mates' ends them.
            self._fail(assign, "the optimizer's state has another layout")
            return Result.ABANDONED
        if assign.moments:
            buckets = buckets.joined(self._moments.buckets())
        buckets.stage(assign.stages[0].weight, assign.round)
        total = buckets.total()
        finite = buckets.finite(total)
        clock.stage = time.monotonic() - started
        if not finite:
            return Result.NOT_FINITE
        self._journal.attempt(term, assign, idle, total)
        arrive: m.Arrive | None = m.Arrive(assign.round, assign.attempt, idle)
        for number, stage in enumerate(assign.stages):
            if number:
                buckets.scale(stage.weight)
            if len(stage.members) > 1:
                if not self._sum(assign, stage, buckets, arrive, clock):
                    return Result.ABANDONED
                arrive = None
        started = time.monotonic()
        if assign.strict and not self._confirm(assign, batches):
            return Result.ABANDONED
        clock.commit = time.monotonic() - started
        started = time.monotonic()
        result = self._commit(assign, batches, buckets)
        clock.apply = time.monotonic() - started
        return result

    def _sum(
        self,
        assign: m.Assign,
        stage: m.Stage,
        buckets: Buckets,
        arrive: m.Arrive | None,
        clock: Clock,
    ) -> bool:
        """Sum what is staged over one group; False if the attempt is over without a result.

        ``arrive`` goes out when the group stands, so that the deadline excludes its build, and
        only if the operations take long; a first one tells that the build is waited for.
        """
        started = time.monotonic()
        pending = self._communicators.prepare(Communicator(stage.communicator, stage.members))
        if not pending.done():
            self._communicators.hasten()
            if arrive is not None:
                self._link.send(replace(arrive, building=True))
        group = self._group(assign, stage.communicator, pending)
        clock.build += time.monotonic() - started
        if group is None:
            return False
        started = time.monotonic()
        operations = _Operations(self._link)
        operations.start(group, buckets.buckets())
        try:
            self._foresee(assign)
            # They mostly end at once, and then ``Applied`` says all: one message a round less for
            # everybody. An attempt that is given up ends them too.
            if not operations.end_within(ARRIVE_AFTER_SECONDS):
                if arrive is not None:
                    self._link.send(arrive)
                operations.tell()
                give_up = time.monotonic() + PROVISIONAL_SECONDS
                self._wait(lambda: operations.over or self._is_over(assign, give_up))
        finally:
            if operations.pending:
                buckets.renew()
                operations.tell()
        clock.allreduce += time.monotonic() - started
        if not operations.succeeded:
            return self._fail(assign, operations.error or "no answer")
        return buckets.is_sum_of(assign.round) or self._fail(assign, "a mate is in another round")

    def _group(self, assign: m.Assign, communicator: str, pending: Pending) -> Group | None:
        """Return the group of a stage when it is built; None if the attempt is over before."""
        if pending.done():
            self.cache_hits += 1
        else:
            self.cache_misses += 1
            pending.add_done_callback(lambda _: self._link.wake())
            self._wait(lambda: pending.done() or self._is_over(assign, 0.0))
        try:
            if pending.done():
                return pending.result()
        except BuildCancelledError:
            self._fail(assign, f"communicator {communicator} was given up")
        except CommunicatorError as error:
            self._fail(assign, error)
        # It may have been prepared here after the link had given it up.
        self._communicators.abandon(communicator)
        self._give_up(assign)
        return None

    def _fail(self, assign: m.Assign, error: Exception | str) -> bool:
        """Report what failed and wait for the coordinator, if there is one, to end the attempt."""
        with self._link.condition:
            current = self._link.state.is_current(assign)
        if current:
            self._link.send(m.Failed(assign.round, assign.attempt, str(error)))
            self._wait(lambda: self._is_over(assign, 0.0))
            self._give_up(assign)
        return False

    def _is_over(self, assign: m.Assign, give_up_seconds: float) -> bool:
        """Tell whether an attempt ended; while nobody leads, at the latest when time is over.

        Under the link's condition; while nobody leads, news of that come again and again.
        """
        state = self._link.state
        if state.may_give_up(assign):
            return time.monotonic() >= give_up_seconds
        return not state.is_current(assign)

    def _give_up(self, assign: m.Assign) -> None:
        """While nobody leads, leave the group of an attempt; that ends its mates' operations."""
        with self._link.condition:
            given_up = self._link.state.give_up(assign)
        if given_up:
            for stage in assign.stages:
                self._communicators.abandon(stage.communicator)

    def _confirm(self, assign: m.Assign, batches: tuple[int, ...]) -> bool:
        state = self._link.state
        self._link.send(m.Confirm(assign.round, assign.attempt, batches))
        self._wait(lambda: state.is_committed(assign) or not state.is_current(assign))
        with self._link.condition:
            return state.is_committed(assign)

    def _commit(
        self, assign: m.Assign, batches: tuple[int, ...], buckets: Buckets | None
    ) -> Result:
        """Take the result over that is staged; None: there was nobody to average with."""
        with self._link.condition:
            applied = self._link.state.apply(assign, batches)
        if applied is None:
            return Result.ABANDONED
        self._journal.applied(assign)
        if buckets is not None:
            buckets.apply()
        self._link.hold(applied)
        return Result.SOLO if buckets is None else Result.COMMITTED
