"""Process groups over gloo that can be built without a world and given up while stuck.

A group is a bare ``ProcessGroupGloo``: no default group, nothing registered. Each has a device
of its own, which makes its sockets recognisable (``sockets``); a shared device would save 10 ms
when a group is destroyed, but the reaper hides those.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from dssync.errors import BuildCancelledError, CommunicatorError
from dssync.worker.communicator import Communicator, Done
from dssync.worker.reaper import Reaper
from dssync.worker.sockets import OpenSocket, connected_sockets, listener_endpoint, shut_down
from dssync.worker.store import Mailbox, MailboxStore

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

    def build(self, spec: Communicator, mailbox: Mailbox) -> GlooGroup:
        """Builds the group together with its other members; blocks until all are connected.

        Raises:
            BuildCancelledError: The communicator was discarded from the mailbox meanwhile.
            CommunicatorError: A member did not show up, or a connection failed.
        """
        try:
            return self._build(spec, mailbox)
        except BuildCancelledError:
            raise
        except Exception as error:
            raise CommunicatorError(
                f"communicator {spec.id} of {', '.join(spec.members)} could not be built: {error}"
            ) from error

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
            connected_sockets(listeners),
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
        # Lazy connections may hang when a mate dies before the first operation.
        return dist.ProcessGroupGloo.create_device(**where, lazy_init=False)


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

    def allreduce(self, tensor: torch.Tensor, on_done: Done) -> None:
        """Starts to sum a tensor over the members, in place.

        Args:
            tensor: Contiguous, on the CPU, of the same size and type at all members (a different
                size ends the process). Belongs to the group until ``on_done`` was called.
            on_done: Called once, with None or the error, from a thread of the group or from
                this call; must neither block nor raise. After ``abandon`` it is still called.

        Raises:
            CommunicatorError: The group was closed or abandoned, or cannot sum such a tensor.
        """
        number = self._begin(tensor)
        options = dist.AllreduceOptions()
        options.timeout = self._operation_timeout
        try:
            # Neither the process group nor the work may stay in this frame: it could outlive the
            # group's burial and then destroy the group here.
            future = self._process_group.allreduce(  # type: ignore[attr-defined]  # not in torch's stubs
                [tensor], options
            ).get_future()
        except (RuntimeError, ValueError) as error:
            self._end(number)
            raise CommunicatorError(
                f"communicator {self._id} cannot sum a {tensor.dtype} of {tensor.numel()}: {error}"
            ) from error
        future.add_done_callback(partial(self._done, number, on_done))

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

    def _done(self, number: int, on_done: Done, future: torch.futures.Future[object]) -> None:
        error = self._error_of(future)
        self._end(number)
        on_done(error)

    def _error_of(self, future: torch.futures.Future[object]) -> CommunicatorError | None:
        try:
            future.value()
        except Exception as error:
            return CommunicatorError(f"an operation of communicator {self._id} failed: {error}")
        return None

    def _end(self, number: int) -> None:
        with self._lock:
            del self._buffers[number]
            last = self._closed and not self._buffers
        if last:
            self._reaper.bury(self._destroy)

    def _destroy(self) -> None:
        del self._process_group
