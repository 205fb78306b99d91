"""torch's NCCL groups as ``nccl.DeviceGroup``: what is called in which way, and nothing decided.

torch 2.15 has two: ``ProcessGroupNCCL2``, which ``"nccl"`` stands for, and the legacy
``ProcessGroupNCCL``, taken where the other is missing or ``TORCH_DIST_USE_NCCL2=0`` asks for it.
Both are built with non-blocking communicators, so that a mate that dies meanwhile costs a timeout
and not the builder, and run an operation that is not ``asyncOp`` on the caller's stream.

Building a group on a machine without a driver ends the process (its destructor throws), so
``transport`` looks for a device first.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import ErrorType

from dssync.errors import CommunicatorError
from dssync.worker.communicator import Communicator
from dssync.worker.nccl import DeviceGroup, DeviceOperation
from dssync.worker.store import Mailbox, MailboxStore

BUILD_TIMEOUT_SECONDS = 60.0
"""A process' first communicator loads kernels: 55 s have been seen (nccl issue 1646)."""
OPERATION_TIMEOUT_SECONDS = 600.0
"""Only for torch's own watchdog, which is told to do nothing; rounds have their own deadlines."""
MAX_CHANNELS = 8
"""A communicator's memory grows with its channels (nccl issue 964). Not measured here."""
LEGACY_VARIABLE = "TORCH_DIST_USE_NCCL2"


def connector(device: torch.device) -> Connector:
    """Return what builds groups on a device, with one communication stream for all of them."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return Connector(device, stream)


class Connector:
    """Builds groups on one device."""

    def __init__(self, device: torch.device, stream: torch.cuda.Stream) -> None:
        self._device = device
        self._stream = stream

    def __call__(self, spec: Communicator, rank: int, mailbox: Mailbox) -> DeviceGroup:
        """Build a connected group; blocks until all mates are there."""
        torch.cuda.set_device(self._device)  # of this thread
        store = MailboxStore(mailbox, spec.id, BUILD_TIMEOUT_SECONDS)
        size = len(spec.members)
        group: Any
        if _is_legacy():
            group = dist.ProcessGroupNCCL(store, rank, size, _options())
            group.eager_connect_single_device(self._device)
        else:
            group = dist.ProcessGroupNCCL2(store, rank, size, _options(), self._device)
        return TorchGroup(spec.id, group, self._stream)


def _is_legacy() -> bool:
    return not hasattr(dist, "ProcessGroupNCCL2") or os.environ.get(LEGACY_VARIABLE) == "0"


def _options() -> dist.ProcessGroupNCCL.Options:
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=BUILD_TIMEOUT_SECONDS)
    options.config.blocking = 0
    options.config.max_ctas = MAX_CHANNELS
    return options


def _mark() -> torch.cuda.Event:
    """Return an event behind what the current stream holds."""
    event: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


class TorchGroup:
    """One process group on the communication stream."""

    def __init__(self, name: str, process_group: Any, stream: torch.cuda.Stream) -> None:
        self._name = name
        self._process_group = process_group
        self._stream = stream

    def staged(self) -> torch.cuda.Event:
        """See ``DeviceGroup.staged``."""
        return _mark()

    def launch(self, tensor: torch.Tensor, staged: object) -> DeviceOperation:
        """See ``DeviceGroup.launch``."""
        options = dist.AllreduceOptions()
        options.asyncOp = False
        options.timeout = timedelta(seconds=OPERATION_TIMEOUT_SECONDS)
        with torch.cuda.stream(self._stream):
            if isinstance(staged, torch.cuda.Event):
                self._stream.wait_event(staged)
            self._process_group.allreduce([tensor], options)
            ended = _mark()
        return TorchOperation(self._name, self._process_group, ended)

    def abort(self) -> None:
        """See ``DeviceGroup.abort``."""
        self._process_group.abort()

    def destroy(self) -> None:
        """See ``DeviceGroup.destroy``; after an abort only the object is left."""
        self._process_group.shutdown()
        del self._process_group


class TorchOperation:
    """An all-reduce in flight."""

    def __init__(self, name: str, process_group: Any, ended: torch.cuda.Event) -> None:
        self._name = name
        self._process_group = process_group
        self._ended = ended

    def over(self) -> bool:
        """See ``DeviceOperation.over``."""
        ended = bool(self._ended.query())  # type: ignore[no-untyped-call]
        error = self._process_group.get_error()
        if error != ErrorType.SUCCESS:
            raise CommunicatorError(f"an operation of communicator {self._name} failed: {error}")
        return ended
