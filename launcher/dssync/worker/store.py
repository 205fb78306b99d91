"""Rendezvous of a group's members without a server: addresses are pushed, never asked for.

Building a process group needs each member's address at all the others. torch's ``TCPStore``
keeps such keys on a server, whose death loses them and whose waits cannot be cancelled. Here a
member pushes its address over the control connection once, and each worker keeps what arrives in
its own mailbox. Waiting is local, so a build ends at once when its communicator is discarded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from torch.distributed.distributed_c10d import Store

from dssync.errors import BuildCancelledError, CommunicatorError

# Mates may push before this worker hears of a communicator, or long after it gave one up. Ids
# beyond this many are forgotten, oldest first, so that neither kind can pile up. A member needs
# less than a hundred at a time: those of two periods of rounds.
_REMEMBERED_IDS = 256

_T = TypeVar("_T")


class Mailbox:
    """Addresses of the members of every communicator that this worker is building.

    All methods may be called from any thread.
    """

    def __init__(self, send: Callable[[str, str, bytes], None]) -> None:
        """Makes an empty mailbox.

        Args:
            send: Called as ``send(communicator_id, key, value)`` from the thread of a build;
                brings the blob to every other member of that communicator.
        """
        self._send = send
        self._changed = threading.Condition()
        self._blobs: OrderedDict[str, dict[str, bytes]] = OrderedDict()
        self._discarded: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        """Number of communicators with blobs that are still kept."""
        return len(self._blobs)

    def put(self, communicator_id: str, key: str, value: bytes) -> None:
        """Keeps this worker's own blob and pushes it to the mates.

        Raises:
            BuildCancelledError: The communicator was discarded.
        """
        self.deliver(communicator_id, key, value)
        self.take(communicator_id, [key], 0)
        self._send(communicator_id, key, value)

    def deliver(self, communicator_id: str, key: str, value: bytes) -> None:
        """Keeps a mate's blob, also before the build starts here; ignores discarded ids."""
        with self._changed:
            if communicator_id in self._discarded:
                return
            self._blobs.setdefault(communicator_id, {})[key] = value
            _forget_oldest(self._blobs)
            self._changed.notify_all()

    def take(
        self, communicator_id: str, keys: Sequence[str], timeout_seconds: float
    ) -> list[bytes]:
        """Waits until all keys are there and returns their blobs.

        Raises:
            BuildCancelledError: The communicator was discarded, before or during the wait.
            CommunicatorError: A mate did not push within the timeout.
        """
        with self._changed:
            complete = self._changed.wait_for(
                lambda: (
                    communicator_id in self._discarded or not self._missing(communicator_id, keys)
                ),
                timeout_seconds,
            )
            if communicator_id in self._discarded:
                raise BuildCancelledError(
                    f"the build of communicator {communicator_id} was cancelled; "
                    "ask for the next assignment"
                )
            if not complete:
                raise CommunicatorError(
                    f"communicator {communicator_id}: no blob for "
                    f"{self._missing(communicator_id, keys)} within {timeout_seconds:g} s; "
                    "build it again under a new id"
                )
            return [self._blobs[communicator_id][key] for key in keys]

    def blobs(self, communicator_id: str) -> list[bytes]:
        """All blobs that are there for one communicator, the own one included."""
        with self._changed:
            return list(self._blobs.get(communicator_id, {}).values())

    def discard(self, communicator_id: str) -> None:
        """Drops a communicator's blobs for good and cancels its build if one is waiting."""
        with self._changed:
            self._blobs.pop(communicator_id, None)
            self._discarded[communicator_id] = None
            _forget_oldest(self._discarded)
            self._changed.notify_all()

    def _missing(self, communicator_id: str, keys: Sequence[str]) -> list[str]:
        there = self._blobs.get(communicator_id, {})
        return [key for key in keys if key not in there]


def _forget_oldest(remembered: OrderedDict[str, _T]) -> None:
    while len(remembered) > _REMEMBERED_IDS:
        remembered.popitem(last=False)


class MailboxStore(Store):
    """The store of one build: what ``ProcessGroupGloo`` asks of a store, over a mailbox.

    Only the three calls that its constructor makes exist; a contract test pins them.
    """

    def __init__(self, mailbox: Mailbox, communicator_id: str, timeout_seconds: float) -> None:
        super().__init__()
        self._mailbox = mailbox
        self._communicator_id = communicator_id
        self._timeout_seconds = timeout_seconds

    def set(self, key: str, value: str | bytes) -> None:
        """Pushes this member's address."""
        blob = value.encode() if isinstance(value, str) else value
        self._mailbox.put(self._communicator_id, key, blob)

    def get(self, key: str) -> bytes:
        """Returns a member's address, waiting for it."""
        return self._mailbox.take(self._communicator_id, [key], self._timeout_seconds)[0]

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Waits for the addresses of members."""
        seconds = self._timeout_seconds if timeout is None else timeout.total_seconds()
        self._mailbox.take(self._communicator_id, keys, seconds)
