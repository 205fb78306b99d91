"""In which order NCCL is called: the decisions of the NCCL backend. Sans IO.

NCCL forgives less than gloo. Kernels of two communicators on one device can wait for each other
for ever; destroying an idle communicator waits for the device, and with it for a kernel that is
stuck; an abort can itself hang. Hence the rules of this machine (NCCL user guide, fault
tolerance; nccl issues 1013 and 992):

1. Operations of at most one group are in flight; those of another group wait in their order.
2. One abort at a time, and nothing is launched meanwhile. A group with operations in flight is
   aborted at once; one without has nothing to release and waits until nothing is in flight.
3. What is in flight in a group that was given up has failed, whatever its events say: an aborted
   kernel ends like one that succeeded.
4. A group is destroyed when its last operation has ended and nothing is in flight.
5. An abort that is not over by its deadline never will be: the process has to go.
"""

from collections import deque
from dataclasses import dataclass, field

from dssync.errors import CommunicatorError


@dataclass(frozen=True)
class Launch:
    """Enqueue an operation on the communication stream."""

    group: str
    operation: int


@dataclass(frozen=True)
class Finish:
    """Tell the owner of an operation that it has ended."""

    operation: int
    error: str
    """Empty if it succeeded."""


@dataclass(frozen=True)
class Abort:
    """Abort a group in a thread of its own, and report to ``aborted``."""

    group: str


@dataclass(frozen=True)
class Destroy:
    """Destroy a group; it has no operation and is never named again."""

    group: str


@dataclass(frozen=True)
class Exit:
    """End the process: the abort of a group hangs."""

    group: str


Effect = Launch | Finish | Abort | Destroy | Exit


@dataclass
class _Group:
    queued: set[int] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    closed: bool = False
    given_up: bool = False


class Lane:
    """What is in flight on one device.

    Args:
        abort_seconds: longest that an abort may take.
    """

    def __init__(self, abort_seconds: float) -> None:
        self._abort_seconds = abort_seconds
        self._groups: dict[str, _Group] = {}
        self._queue: deque[tuple[str, int]] = deque()
        self._to_abort: deque[str] = deque()
        self._aborting: str | None = None
        self.deadline: float | None = None
        """When the abort under way has to be over; None once that has passed, too."""
        self._numbers = 0

    @property
    def running(self) -> tuple[int, ...]:
        """Operations in flight whose end is to be reported to ``ended``."""
        alive = (group for group in self._groups.values() if not group.given_up)
        return tuple(number for group in alive for number in sorted(group.running))

    def open(self, name: str) -> None:
        """Take in a group that was built."""
        self._groups[name] = _Group()

    def submit(self, name: str) -> int:
        """Queue an operation and return its number; ``advance`` launches it.

        Raises:
            CommunicatorError: the group was closed or given up.
        """
        group = self._groups.get(name)
        if group is None or group.closed:
            raise CommunicatorError(
                f"communicator {name} was given up; use the one of the next assignment"
            )
        self._numbers += 1
        group.queued.add(self._numbers)
        self._queue.append((name, self._numbers))
        return self._numbers

    def ended(self, operation: int, error: str) -> list[Effect]:
        """Note that an operation left the device; ignored if its group was given up."""
        for group in self._groups.values():
            if operation in group.running and not group.given_up:
                group.running.discard(operation)
                return [Finish(operation, error)]
        return []

    def close(self, name: str) -> None:
        """Destroy a group once its operations have ended."""
        group = self._groups.get(name)
        if group is not None:
            group.closed = True

    def abandon(self, name: str) -> list[Effect]:
        """Give a group up; what waits fails at once, what is in flight when it is aborted."""
        group = self._groups.get(name)
        if group is None or group.given_up:
            return []
        group.closed = group.given_up = True
        self._to_abort.append(name)
        waiting, group.queued = sorted(group.queued), set()
        return [Finish(number, f"communicator {name} was given up") for number in waiting]

    def aborted(self, name: str) -> list[Effect]:
        """Note that an abort is over: its operations have left the device."""
        group, self._aborting, self.deadline = self._groups.pop(name), None, None
        error = f"communicator {name} was given up while it was summing"
        return [*(Finish(number, error) for number in sorted(group.running)), Destroy(name)]

    def pending(self, name: str) -> int:
        """Return the number of a group's operations that have not ended."""
        group = self._groups.get(name)
        return 0 if group is None else len(group.queued) + len(group.running)

    def advance(self, now: float) -> list[Effect]:
        """Return what can be done now; to be called after each of the others.

        Args:
            now: seconds of a clock that never goes back.
        """
        if self._aborting is not None:
            return self._overdue(self._aborting, now)
        busy = self._busy()
        chosen = next((n for n in self._to_abort if busy in (None, n)), None)
        if chosen is not None:
            self._to_abort.remove(chosen)
            self._aborting, self.deadline = chosen, now + self._abort_seconds
            return [Abort(chosen)]
        if self._to_abort:
            # What is in flight comes to its end first, or is given up itself.
            return []
        return [*self._destroyed(busy), *self._launched(busy)]

    def _overdue(self, name: str, now: float) -> list[Effect]:
        if self.deadline is None or now < self.deadline:
            return []
        self.deadline = None
        return [Exit(name)]

    def _busy(self) -> str | None:
        return next((name for name, group in self._groups.items() if group.running), None)

    def _destroyed(self, busy: str | None) -> list[Effect]:
        if busy is not None:
            return []
        over = [n for n, g in self._groups.items() if g.closed and not g.given_up and not g.queued]
        for name in over:
            del self._groups[name]
        return [Destroy(name) for name in over]

    def _launched(self, busy: str | None) -> list[Effect]:
        effects: list[Effect] = []
        while self._queue:
            name, number = self._queue[0]
            group = self._groups.get(name)
            if group is not None and number in group.queued:
                if busy not in (None, name):
                    break
                busy = name
                group.queued.discard(number)
                group.running.add(number)
                effects.append(Launch(name, number))
            self._queue.popleft()
        return effects
