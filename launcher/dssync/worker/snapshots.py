"""Snapshots for joiners: asked for by a transfer's thread, taken by the training thread.

Only the training thread knows when nothing trains. It takes one snapshot for all joiners that
wait, into the buffer of the last one unless that is still being streamed.
"""

from collections.abc import Callable

from dssync.control.viewlog import Point
from dssync.errors import DssyncError, TransferError
from dssync.worker.journal import Journal
from dssync.worker.link import Link
from dssync.worker.measure import Measure
from dssync.worker.payload import Payload
from dssync.worker.staging import Snapshot, take_snapshot
from dssync.worker.transfer import StateServer


class Snapshots:
    """The state that this member serves.

    Args:
        link: wakes the training thread.
        payload: the state.
        measure: of this worker.
        journal: notes what was given away.
        now: returns the moment, as the view log counts.
    """

    def __init__(
        self,
        link: Link,
        payload: Payload,
        measure: Measure,
        journal: Journal,
        now: Callable[[], Point],
    ) -> None:
        self.address = ""
        self._journal = journal
        self._now = now
        self._measure = measure
        self._link = link
        self._payload = payload
        self._server: StateServer | None = None
        self._waiting = 0
        self._taken = 0
        self._snapshot: Snapshot | None = None
        self._closed = False

    @property
    def asked(self) -> bool:
        """Whether a joiner waits for a snapshot."""
        return self._waiting > 0

    @property
    def busy(self) -> bool:
        """Whether a joiner is being served."""
        return self._server is not None and self._server.transfers > 0

    @property
    def served(self) -> int:
        """How many joiners have got the state so far."""
        return self._server.served if self._server is not None else 0

    def serve(self) -> None:
        """Listen for joiners; a world of one has none."""
        setup = self._link.setup
        if setup.host:
            token = bytes.fromhex(setup.token)
            self._server = StateServer(setup.host, token, self._request, self._link.wake)
            self.address = self._server.address

    def take(self) -> None:
        """Take a snapshot for everybody who waits. Called where nothing trains."""
        with self._link.condition:
            waiting = self._waiting
        streaming = self._server.transfers - waiting if self._server is not None else 0
        reuse = self._snapshot.memory if self._snapshot is not None and not streaming else None
        try:
            now = self._now()
            moment = (now.generation, now.steps, now.round)
            self._snapshot = take_snapshot(self._payload.state(), reuse, moment)
            self._journal.donated(now)
            self._measure.increment(
                "dssync_state_transfer_bytes_total",
                self._snapshot.buffer.numel() * waiting,
                direction="sent",
            )
        except DssyncError:
            # The state cannot be sent; joiners are told by the end of their connections.
            self._snapshot = None
        with self._link.condition:
            self._waiting = 0
            self._taken += 1
            self._link.condition.notify_all()

    def close(self) -> None:
        """Serve nobody any more."""
        with self._link.condition:
            self._closed = True
            self._link.condition.notify_all()
        if self._server is not None:
            self._server.close()

    def _request(self) -> Snapshot:
        with self._link.condition:
            number = self._taken
            self._waiting += 1
            self._link.condition.notify_all()
            self._link.condition.wait_for(lambda: self._taken > number or self._closed)
            if self._snapshot is None or self._taken == number:
                raise TransferError("this member has no state to send")
            return self._snapshot
