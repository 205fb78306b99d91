"""Process groups over gloo that can be built without a world and given up while stuck.

A group is a bare ``ProcessGroupGloo``: no default group, nothing registered. Each has a device
of its own, which makes its sockets recognisable (``sockets``); a shared device would save 10 ms
when a group is destroyed, but the reaper hides those.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from dssync.errors import CommunicatorError
from dssync.worker.communicator import Communicator, Done, building
from dssync.worker.cores import starting_patient_threads
from dssync.worker.reaper import Reaper
from dssync.worker.sockets import Connections, OpenSocket, listener_endpoint, shut_down
from dssync.worker.store import Mailbox, MailboxStore

# torch records the last 2,000 operations with their stacks, and each group that ever ran one: a
# member that forms groups for days would only grow, by 0.2 MB in each 1,000 rounds of churn.
_RECORDED_OPERATIONS = ("TORCH_FR_BUFFER_SIZE", "0")

# Measured: with more than four buckets in flight two threads are faster than one, four are not.
_THREADS = 2


@dataclass(frozen=True)
class GlooSettings:
    """Where groups listen and how long they may take."""

    host: str = "127.0.0.1"
    """Numeric address to bind and to publish; a name would put a resolver into each build."""
    interface: str = ""
    """Network interface to bind instead of ``host``."""
    build_timeout_seconds: float = 10.0
    """Longest wait for the mates' addresses, and for connecting to them."""
    operation_timeout_seconds: float = 30.0
    """Longest wait for a mate inside an operation. To exceed the longest round deadline; bounds
    how long the reaper keeps an abandoned group."""


class GlooBackend:
    """Builds gloo groups for one member."""

    def __init__(self, member: str, reaper: Reaper, settings: GlooSettings | None = None) -> None:
        self._member = member
        self._reaper = reaper
        self._settings = settings or GlooSettings()
        self._connections = Connections()
        os.environ.setdefault(*_RECORDED_OPERATIONS)

    def build(self, spec: Communicator, mailbox: Mailbox) -> GlooGroup:
        """Builds the group together with its other members; blocks until all are connected.

        Raises:
            BuildCancelledError: The communicator was discarded from the mailbox meanwhile.
            CommunicatorError: A member did not show up, or a connection failed.
        """
        with building(spec):
            return self._build(spec, mailbox)

    def _build(self, spec: Communicator, mailbox: Mailbox) -> GlooGroup:
        # The options hold the listener: in a local variable they would live on in the traceback
        # of a failed build.
        store = MailboxStore(mailbox, spec.id, self._settings.build_timeout_seconds)
        process_group = dist.ProcessGroupGloo(
            store, spec.rank_of(self._member), len(spec.members), self._options()
        )
        listeners = {listener_endpoint(blob) for blob in mailbox.blobs(spec.id)}
        return GlooGroup(
            spec.id,
            process_group,
            self._connections.to(listeners),
            timedelta(seconds=self._settings.operation_timeout_seconds),
            self._reaper,
        )

    def _options(self) -> Any:
        # The type exists only under private names, which a contract test pins.
        options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._timeout = timedelta(seconds=self._settings.build_timeout_seconds)
        options._threads = _THREADS
        options._devices = [self._device()]
        return options

    def _device(self) -> dist.ProcessGroupGloo.Device:
        where = (
            {"interface": self._settings.interface}
            if self._settings.interface
            else {"hostname": self._settings.host}
        )
        with starting_patient_threads():
            # Lazy connections may hang when a mate dies before the first operation.
            return dist.ProcessGroupGloo.create_device(**where, lazy_init=False)


class GlooOperation:
    """One sum. Drops its work before it tells the group, so that only the reaper destroys."""

    def __init__(self, communicator_id: str, work: dist.Work, on_end: Callable[[], None]) -> None:
        self._id = communicator_id
        self._work: dist.Work | None = work
        self._on_end = on_end

    def wait(self, seconds: float) -> bool:
        """See ``Operation.wait``.

        A thread of the group that has to call into Python waits for the interpreter's lock, and
        then the waiting thread does: measured, that is a tenth of a round of 1 MB.
        """
        if self._work is None:
            return True
        error = None
        try:
            # Whole milliseconds count, and none would mean for ever.
            self._work.wait(timedelta(milliseconds=max(1, math.ceil(seconds * 1000))))
        except RuntimeError:
            if not self._work.is_completed():
                return False
            # It may have ended well just after the time was over.
            error = self._error_of(self._work.get_future())
        self._work = None
        self._on_end()
        if error is not None:
            raise error
        return True

    def when_done(self, on_done: Done) -> None:
        """See ``Operation.when_done``: called from a thread of the group or from this call.

        It must neither block nor raise. After ``abandon`` it is still called.
        """
        if self._work is not None:
            future = self._work.get_future()
            self._work = None
            future.add_done_callback(partial(self._done, on_done))

    def _done(self, on_done: Done, future: torch.futures.Future[object]) -> None:
        error = self._error_of(future)
        self._on_end()
        on_done(error)

    def _error_of(self, future: torch.futures.Future[object]) -> CommunicatorError | None:
        try:
            future.value()
        except Exception as error:
            return self._failed(error)
        return None

    def _failed(self, error: Exception) -> CommunicatorError:
        return CommunicatorError(f"an operation of communicator {self._id} failed: {error}")


class GlooGroup:
    """A connected group. Owns its process group alone and lets only the reaper destroy it."""

    def __init__(
        self,
        communicator_id: str,
        process_group: dist.ProcessGroupGloo,
        sockets: Sequence[OpenSocket],
        operation_timeout: timedelta,
        reaper: Reaper,
    ) -> None:
        self._id = communicator_id
        self._process_group = process_group
        self._sockets = sockets
        self._operation_timeout = operation_timeout
        self._reaper = reaper
        self._lock = threading.Lock()
        self._closed = False
        self._numbers = itertools.count()
        self._buffers: dict[int, torch.Tensor] = {}
        """Tensors of the operations that have not ended: gloo may write to them at any time."""

    def allreduce(self, tensor: torch.Tensor) -> GlooOperation:
        """Starts to sum a tensor over the members, in place.

        Args:
            tensor: Contiguous, on the CPU, of the same size and type at all members (a different
                size ends the process). Belongs to the group until the operation has ended.

        Raises:
            CommunicatorError: The group was closed or abandoned, or cannot sum such a tensor.
        """
        number = self._begin(tensor)
        options = dist.AllreduceOptions()
        options.timeout = self._operation_timeout
        try:
            # The process group may not stay in a frame: it could outlive the group's burial and
            # then destroy the group here.
            work = self._process_group.allreduce(  # type: ignore[attr-defined]  # not in stubs
                [tensor], options
            )
        except (RuntimeError, ValueError) as error:
            self._end(number)
            raise CommunicatorError(
                f"communicator {self._id} cannot sum a {tensor.dtype} of {tensor.numel()}: {error}"
            ) from error
        return GlooOperation(self._id, work, partial(self._end, number))

    def abandon(self) -> int:
        """Gives the group up: shuts down its connections, the reaper destroys it later.

        Never blocks. Its operations fail within milliseconds, rarely only at their timeout, so
        nobody may wait for them.

        Returns:
            How many operations were under way.
        """
        stuck = len(self._buffers)
        shut_down(self._sockets)
        self.close()
        return stuck

    def close(self) -> None:
        """Lets the reaper destroy the group when its last operation has ended. Never blocks."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            ended = not self._buffers
        self._reaper.adopt()
        if ended:
            self._reaper.bury(self._destroy)

    def _begin(self, tensor: torch.Tensor) -> int:
        with self._lock:
            if self._closed:
                raise CommunicatorError(
                    f"communicator {self._id} was given up; use the one of the next assignment"
                )
            number = next(self._numbers)
            self._buffers[number] = tensor
            return number

    def _end(self, number: int) -> None:
        with self._lock:
            del self._buffers[number]
            last = self._closed and not self._buffers
        if last:
            self._reaper.bury(self._destroy)

    def _destroy(self) -> None:
        del self._process_group
