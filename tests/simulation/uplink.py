"""A launcher's way to the coordinator of one term: in this process, or over the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dssync.agent.awake import AwakeClock
from dssync.control import messages as m
from dssync.control.events import Received
from dssync.control.peers import Leader
from simulation.hub import Hub
from simulation.network import End, Handlers

if TYPE_CHECKING:
    from simulation.pod import Pod

RETRY_SECONDS = 0.05
LEASE_SECONDS = 2.0


class LocalUplink:
    """To the coordinator in this pod."""

    def __init__(self, pod: Pod, hub: Hub) -> None:
        self._pod = pod
        self._hub = hub

    def send(self, message: m.FromLauncher) -> None:
        self._hub.handle(Received(self._pod.spec.slot, message))

    def close(self) -> None:
        """Send nothing more."""


class RemoteUplink:
    """To a coordinator elsewhere; reconnects until it is closed."""

    def __init__(self, pod: Pod, leader: Leader) -> None:
        self.leader = leader
        self.end: End | None = None
        self._pod = pod
        self._clock = AwakeClock(pod.clock)
        self._heard_seconds = self._clock.now()
        self._session = pod.world.new_session()
        self._closed = False
        self._linked = False
        self._ready = False
        self._connect()

    def send(self, message: m.FromLauncher) -> None:
        payload = self._pod.world.parcels.pack(message)
        if isinstance(message, m.Heartbeat):
            frame = self._session.passing(payload)
            self._check_silence()
        else:
            frame = self._session.number(payload)
        if self._ready and self.end is not None:
            self.end.send(frame)

    def close(self) -> None:
        self._closed = True
        if self.end is not None:
            self.end.close()

    def _connect(self) -> None:
        if not self._closed:
            network = self._pod.world.network
            network.connect(self._pod, self.leader.address, self._opened, self._failed)

    def _failed(self) -> None:
        self._pod.later(RETRY_SECONDS, self._connect)

    def _opened(self, end: End) -> None:
        if self._closed:
            end.close()
            return
        self.end = end
        end.handlers = Handlers(lambda frame: self._frame(end, frame), lambda: self._lost(end))
        hello = self._pod.hello()
        end.send(self._pod.world.parcels.pack((hello, self._session.name, self.leader.term)))

    def _frame(self, end: End, frame: bytes) -> None:
        if end is not self.end:
            return
        if not self._linked:
            self._accepted(end, frame)
            return
        self._heard_seconds = self._clock.now()
        payload = self._session.accept(frame)
        if not self._ready:
            self._ready = True
            for each in self._session.resume():
                end.send(each)
        if payload:
            message = self._pod.world.parcels.unpack(payload)
            self._pod.hears(self.leader.term, message)  # type: ignore[arg-type]

    def _accepted(self, end: End, frame: bytes) -> None:
        name, term = map(int, frame.split())
        first = not self._session.name
        fresh = not first and name != self._session.name
        if fresh:
            self._session = self._pod.world.new_session()
        self._session.name = name
        self._linked, self._heard_seconds = True, self._clock.now()
        end.send(self._session.passing())
        self._pod.linked(term, first=first)
        if fresh:
            self._pod.lost_contact()

    def _check_silence(self) -> None:
        silent = self._clock.now() - self._heard_seconds
        if self.end is not None and self._ready and silent > LEASE_SECONDS:
            end = self.end
            self._lost(end)
            end.close()

    def _lost(self, end: End) -> None:
        if end is not self.end:
            return
        was_linked, self._linked, self._ready, self.end = self._linked, False, False, None
        if not self._closed:
            self._pod.later(RETRY_SECONDS, self._connect)
            if was_linked:
                self._pod.link_lost()
