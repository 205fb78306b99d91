"""Process groups over NCCL behind the same adapter as gloo's: ``Lane`` decides, this obeys.

Each group is built afresh, without a world, over the mailbox's store: ``reconfigure`` of torch
2.15's NCCL2 group needs the same exchange between all survivors, and a revoked communicator keeps
its memory until then. Aborts never end the process, because the launcher sets
``TORCH_NCCL_ASYNC_ERROR_HANDLING=0`` for both kinds of group.

A stream and a thread of its own launch everything. The thread looks at CUDA events instead of
waiting for the device, so the training thread hears of an end as it does from gloo.

Not run on a GPU yet; see ``docs/testing.md``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import torch

from dssync.errors import CommunicatorError
from dssync.worker.communicator import Communicator, Done, building
from dssync.worker.lane import Abort, Destroy, Effect, Exit, Finish, Lane, Launch
from dssync.worker.reaper import Reaper
from dssync.worker.store import Mailbox

POLL_SECONDS = 0.0002
"""Between two looks at the operations in flight; small beside the shortest all-reduce."""
ABORT_SECONDS = 5.0
"""Longest abort; two GPUs were seen to take 0.15 s, so one that takes this long hangs."""


class DeviceOperation(Protocol):
    """An operation in flight."""

    def over(self) -> bool:
        """Tell whether it has left the device.

        Raises:
            CommunicatorError: it has failed.
        """


class DeviceGroup(Protocol):
    """What the backend needs of a process group; a scripted one stands here in tests."""

    def staged(self) -> object:
        """Return a mark on the caller's stream, behind what fills the tensor."""

    def launch(self, tensor: torch.Tensor, staged: object) -> DeviceOperation:
        """Enqueue an all-reduce behind the mark; returns at once.

        Raises:
            CommunicatorError: the group is broken.
        """

    def abort(self) -> None:
        """Release the operations in flight; may block, or hang."""

    def destroy(self) -> None:
        """Free everything; may block."""


Connect = Callable[[Communicator, int, Mailbox], DeviceGroup]
"""Builds a connected group from its communicator, this member's rank and the mailbox."""


class NcclBackend:
    """Builds NCCL groups for one member and runs their operations in one thread.

    Args:
        member: key of this member.
        reaper: destroys groups.
        connect: builds a group.
        on_hung: ends the process; called with the communicator whose abort hangs.
        abort_seconds: longest that an abort may take.
    """

    def __init__(
        self,
        member: str,
        reaper: Reaper,
        connect: Connect,
        on_hung: Callable[[str], None],
        abort_seconds: float = ABORT_SECONDS,
    ) -> None:
        self._member = member
        self._reaper = reaper
        self._connect = connect
        self._on_hung = on_hung
        self._lane = Lane(abort_seconds)
        self._changed = threading.Condition()
        self._groups: dict[str, DeviceGroup] = {}
        self._adopted: set[str] = set()
        """Groups given up that the reaper waits for."""
        self._tensors: dict[int, tuple[torch.Tensor, object, NcclOperation]] = {}
        self._running: dict[int, DeviceOperation] = {}
        self._effects: list[Effect] = []
        self._thread = threading.Thread(target=self._run, name="dssync-nccl", daemon=True)
        self._thread.start()

    def build(self, spec: Communicator, mailbox: Mailbox) -> NcclGroup:
        """Build the group together with its other members; blocks until all are connected.

        Raises:
            BuildCancelledError: the communicator was discarded from the mailbox meanwhile.
            CommunicatorError: a member did not show up, or a connection failed.
        """
        with building(spec):
            group = self._connect(spec, spec.rank_of(self._member), mailbox)
        with self._changed:
            self._groups[spec.id] = group
            self._lane.open(spec.id)
        return NcclGroup(spec.id, self)

    # --- called by groups, from any thread -----------------------------------------------------

    def submit(self, name: str, tensor: torch.Tensor) -> NcclOperation:
        """Queue an all-reduce behind what the caller's stream holds.

        Raises:
            CommunicatorError: the group was given up.
        """
        with self._changed:
            group = self._groups.get(name)
            staged = None if group is None else group.staged()
            operation = NcclOperation()
            self._tensors[self._lane.submit(name)] = (tensor, staged, operation)
            self._changed.notify_all()
        return operation

    def abandon(self, name: str) -> int:
        """Give a group up; return the number of its operations that have not ended."""
        with self._changed:
            stuck = self._lane.pending(name)
            self._effects += self._lane.abandon(name)
            self._give_up(name)
        return stuck

    def close(self, name: str) -> None:
        """Destroy a group when its operations have ended."""
        with self._changed:
            self._lane.close(name)
            self._give_up(name)

    def _give_up(self, name: str) -> None:
        if name in self._groups and name not in self._adopted:
            self._adopted.add(name)
            self._reaper.adopt()
        self._changed.notify_all()

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                effects = self._next_effects()
                if not effects:
                    self._changed.wait(self._patience())
                    effects = self._next_effects()
            for effect in effects:
                self._do(effect)
            self._look()

    def _next_effects(self) -> list[Effect]:
        told, self._effects = self._effects, []
        return told + self._lane.advance(time.monotonic())

    def _patience(self) -> float | None:
        if self._lane.running:
            return POLL_SECONDS
        deadline = self._lane.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def _do(self, effect: Effect) -> None:
        match effect:
            case Launch(name, number):
                self._launch(name, number)
            case Finish(number, error):
                self._finish(number, error)
            case Abort(name):
                group = self._groups[name]
                threading.Thread(
                    target=self._abort, args=(name, group), name="dssync-abort", daemon=True
                ).start()
            case Destroy(name):
                with self._changed:
                    group = self._groups.pop(name)
                    self._adopted.discard(name)
                self._reaper.bury(group.destroy)
            case Exit(name):
                self._on_hung(name)

    def _launch(self, name: str, number: int) -> None:
        tensor, staged, _ = self._tensors[number]
        try:
            self._running[number] = self._groups[name].launch(tensor, staged)
        except Exception as error:
            self._ended(number, f"communicator {name} cannot sum: {error}")

    def _finish(self, number: int, error: str) -> None:
        self._running.pop(number, None)
        _, _, operation = self._tensors.pop(number)
        operation.end(CommunicatorError(error) if error else None)

    def _look(self) -> None:
        """Report the operations that have ended."""
        with self._changed:
            running = self._lane.running
        for number in running:
            try:
                if self._running[number].over():
                    self._ended(number, "")
            except CommunicatorError as error:
                self._ended(number, str(error))

    def _ended(self, number: int, error: str) -> None:
        with self._changed:
            effects = self._lane.ended(number, error)
        for effect in effects:
            self._do(effect)

    def _abort(self, name: str, group: DeviceGroup) -> None:
        group.abort()
        with self._changed:
            self._effects += self._lane.aborted(name)
            self._changed.notify_all()


class NcclOperation:
    """A sum, as `communicator.Operation` wants it; the backend's thread ends it."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._error: CommunicatorError | None = None
        self._on_done: Done | None = None
        self._told = False

    def wait(self, seconds: float) -> bool:
        """See ``Operation.wait``."""
        if not self._ended.wait(seconds):
            return False
        with self._lock:
            first, self._told = not self._told, True
        if first and self._error is not None:
            raise self._error
        return True

    def when_done(self, on_done: Done) -> None:
        """See ``Operation.when_done``; called from the backend's thread or from this call."""
        with self._lock:
            if self._told or self._on_done is not None:
                return
            self._on_done = on_done
            ended = self._ended.is_set()
            self._told = ended
        if ended:
            on_done(self._error)

    def end(self, error: CommunicatorError | None) -> None:
        """Tell whoever waits; called once."""
        self._error = error
        with self._lock:
            self._ended.set()
            on_done = self._on_done
            self._told = self._told or on_done is not None
        if on_done is not None:
            on_done(error)


class NcclGroup:
    """A connected group, as `communicator.Group` wants it."""

    def __init__(self, communicator_id: str, backend: NcclBackend) -> None:
        self._id = communicator_id
        self._backend = backend

    def allreduce(self, tensor: torch.Tensor) -> NcclOperation:
        """See ``Group.allreduce``; the tensor is on the group's device.

        Raises:
            CommunicatorError: the group was closed or abandoned.
        """
        return self._backend.submit(self._id, tensor)

    def abandon(self) -> int:
        """See ``Group.abandon``; the abort happens in a thread of its own."""
        return self._backend.abandon(self._id)

    def close(self) -> None:
        """See ``Group.close``."""
        self._backend.close(self._id)
