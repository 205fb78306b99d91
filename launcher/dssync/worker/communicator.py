"""Communicators: process groups that are built ahead, cached, and given up without waiting.

A round never waits inside a collective: it waits for {operations, membership event, deadline},
and on bad news walks away from the communicator. This module holds what is common to all
backends: what a communicator is, what a backend and its groups must do, and the cache.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch

from dssync.errors import BuildCancelledError, CommunicatorError
from dssync.worker.reaper import Reaper
from dssync.worker.store import Mailbox

Done = Callable[[Exception | None], None]
"""Called once when an operation has ended, from any thread: with None, or with its error."""


@dataclass(frozen=True)
class Communicator:
    """Who shares a process group, under an id that never stands for other members."""

    id: str
    members: tuple[str, ...]
    """Keys of the members; a member's rank is its index."""

    def __post_init__(self) -> None:
        if len(self.members) < 2 or len(set(self.members)) < len(self.members):
            raise CommunicatorError(
                f"communicator {self.id} needs two or more different members, got {self.members}"
            )

    def rank_of(self, member: str) -> int:
        """Rank of a member in this communicator.

        Raises:
            CommunicatorError: It is no member.
        """
        if member not in self.members:
            raise CommunicatorError(
                f"{member} is no member of communicator {self.id} of {', '.join(self.members)}"
            )
        return self.members.index(member)


@contextmanager
def building(spec: Communicator) -> Iterator[None]:
    """Name the communicator in whatever goes wrong while it is built.

    Raises:
        BuildCancelledError: as it is.
        CommunicatorError: in place of any other exception.
    """
    try:
        yield
    except BuildCancelledError:
        raise
    except Exception as error:
        raise CommunicatorError(
            f"communicator {spec.id} of {', '.join(spec.members)} could not be built: {error}"
        ) from error


class Operation(Protocol):
    """A sum that was started. Ends once: in a ``wait`` that returns True, or in ``on_done``."""

    def wait(self, seconds: float) -> bool:
        """Waits for the end, without the interpreter's lock; tells whether it has come.

        Raises:
            CommunicatorError: It has ended with an error.
        """

    def when_done(self, on_done: Done) -> None:
        """Has ``on_done`` called at the end, at once if that has come; not after a ``wait``."""


class Group(Protocol):
    """A connected process group. No method blocks."""

    def allreduce(self, tensor: torch.Tensor) -> Operation:
        """Starts to sum a tensor over the members, in place; owns it until the end."""

    def abandon(self) -> int:
        """Releases stuck operations and has the group destroyed; returns their number."""

    def close(self) -> None:
        """Has the group destroyed when its last operation has ended."""


class Backend(Protocol):
    """Builds groups of one kind."""

    def build(self, spec: Communicator, mailbox: Mailbox) -> Group:
        """Builds one group together with its other members; blocks, in a helper thread.

        Raises:
            BuildCancelledError: The communicator was discarded from the mailbox meanwhile.
            CommunicatorError: The group could not be built.
        """


Pending = Future[Group]
"""A group under construction; fails with what ``Backend.build`` raises."""

HELD_BACK_SECONDS = 0.1
"""Longest wait of a build for the end of a round: its mates wait for it, and may be in none."""


@dataclass(frozen=True)
class Counts:
    """What the cache has done and holds, for metrics."""

    builds_succeeded: int
    builds_failed: int
    builds_cancelled: int
    abandoned: int
    """Communicators given up by ``abandon``, built or not."""
    operations_abandoned: int
    cached: int
    """Communicators built or being built."""
    reaper_pending: int


@dataclass
class _Entry:
    spec: Communicator
    pending: Pending = field(default_factory=Future)
    settled: bool = False
    group: Group | None = None


class Communicators:
    """The communicators of one worker, by id.

    Each id ends with ``abandon`` or ``retire``, also when its build failed. Preparing it after
    that fails with ``BuildCancelledError``, even if it had not been prepared before.

    All methods may be called from any thread, and none but ``close_all`` blocks.

    Builds are for later rounds, and want the cores that a round wants; so do the ends of groups
    that no round uses. They wait for a round to end (``held_back``), and so run beside the
    computation after it, unless somebody waits for a build (``hasten``).
    """

    def __init__(
        self,
        backend: Backend,
        mailbox: Mailbox,
        reaper: Reaper,
        held_back_seconds: float = HELD_BACK_SECONDS,
    ) -> None:
        self._backend = backend
        self._held_back_seconds = held_back_seconds
        self._mailbox = mailbox
        self._reaper = reaper
        self._free = threading.Event()
        self._free.set()
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._retired: list[Group] = []
        self._tally: Counter[str] = Counter()

    def prepare(self, spec: Communicator) -> Pending:
        """Starts to build a communicator, or returns what an earlier call started.

        Each build has a thread of its own: one builder for all would deadlock as soon as two
        members build two common communicators in opposite orders.

        Raises:
            CommunicatorError: The id stands for other members.
        """
        with self._lock:
            known = self._entries.get(spec.id)
            if known is None:
                entry = self._entries[spec.id] = _Entry(spec)
        if known is not None:
            return _same_members(known, spec).pending
        name = f"dssync-build-{spec.id[:8]}"
        threading.Thread(target=self._build, args=(entry,), name=name, daemon=True).start()
        return entry.pending

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Holds back builds that have not begun and groups that retire, while a round sums."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()
            self._close_retired()

    def hasten(self) -> None:
        """Lets builds begin: the round itself waits for one."""
        self._free.set()

    def abandon(self, communicator_id: str) -> None:
        """Gives a communicator up at once: fails its build, or releases its operations."""
        entry = self._remove(communicator_id)
        if entry is None:
            return
        operations = 0 if entry.group is None else entry.group.abandon()
        with self._lock:
            self._tally["abandoned"] += 1
            self._tally["operations_abandoned"] += operations

    def retire(self, communicator_id: str) -> None:
        """Gives up a communicator that is not in use."""
        entry = self._remove(communicator_id)
        if entry is not None and entry.group is not None:
            with self._lock:
                self._retired.append(entry.group)
            if self._free.is_set():
                self._close_retired()

    def close_all(self, timeout_seconds: float) -> bool:
        """Abandons everything; returns whether all groups were destroyed within the timeout.

        To be called before the process exits: an operation that fails while the interpreter
        shuts down would end the process with an abort.
        """
        with self._lock:
            known = list(self._entries)
        for communicator_id in known:
            self.abandon(communicator_id)
        self._close_retired()
        return self._reaper.wait_idle(timeout_seconds)

    def counts(self) -> Counts:
        """The counters now."""
        return Counts(
            builds_succeeded=self._tally["succeeded"],
            builds_failed=self._tally["failed"],
            builds_cancelled=self._tally["cancelled"],
            abandoned=self._tally["abandoned"],
            operations_abandoned=self._tally["operations_abandoned"],
            cached=len(self._entries),
            reaper_pending=self._reaper.pending,
        )

    def _remove(self, communicator_id: str) -> _Entry | None:
        # Also for an id that is not known: news of its end may overtake its assignment.
        self._mailbox.discard(communicator_id)
        with self._lock:
            entry = self._entries.pop(communicator_id, None)
            if entry is None:
                return None
            building, entry.settled = not entry.settled, True
            self._tally["cancelled"] += building
        if building:
            entry.pending.set_exception(
                BuildCancelledError(f"the build of communicator {communicator_id} was cancelled")
            )
        return entry

    def _close_retired(self) -> None:
        with self._lock:
            retired, self._retired = self._retired, []
        for group in retired:
            group.close()

    def _build(self, entry: _Entry) -> None:
        self._free.wait(self._held_back_seconds)
        try:
            group = self._backend.build(entry.spec, self._mailbox)
        except CommunicatorError as error:
            self._fail(entry, error)
        else:
            self._succeed(entry, group)
        finally:
            self._mailbox.discard(entry.spec.id)

    def _fail(self, entry: _Entry, error: CommunicatorError) -> None:
        if self._settle(entry, "failed", None):
            entry.pending.set_exception(error)

    def _succeed(self, entry: _Entry, group: Group) -> None:
        if self._settle(entry, "succeeded", group):
            entry.pending.set_result(group)
        else:
            group.abandon()

    def _settle(self, entry: _Entry, result: str, group: Group | None) -> bool:
        with self._lock:
            if entry.settled:
                return False
            entry.settled, entry.group = True, group
            self._tally[result] += 1
            return True


def _same_members(known: _Entry, spec: Communicator) -> _Entry:
    if known.spec != spec:
        raise CommunicatorError(
            f"communicator {spec.id} stands for {known.spec.members}, not for {spec.members}; "
            "another member list needs another id"
        )
    return known
