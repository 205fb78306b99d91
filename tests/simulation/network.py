"""Connections with delays, and the coordinator's shell at their far end.

A connection is first-in first-out in each direction; connections are not ordered among each
other. A cut loses what is under way in both directions.
"""

from collections.abc import Callable

from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import Connected, Disconnected, Event, Received, Send, Ticked
from dssync.control.session import Session
from simulation.monitor import Monitor
from simulation.scheduler import Scheduler

Deliver = Callable[[bytes], None]

TICK_SECONDS = 0.1


class Connection:
    """One connection of a launcher to the coordinator."""

    def __init__(
        self, scheduler: Scheduler, latency: Callable[[], float], to_hub: Deliver, to_pod: Deliver
    ) -> None:
        self.open = True
        self._scheduler = scheduler
        self._latency = latency
        self._receivers = {"up": to_hub, "down": to_pod}
        self._last = {"up": 0.0, "down": 0.0}

    def send(self, way: str, frame: bytes) -> None:
        if not self.open:
            return
        due = self._last[way] = max(self._last[way], self._scheduler.now + self._latency())
        self._scheduler.at(due, lambda: self._arrive(way, frame))

    def _arrive(self, way: str, frame: bytes) -> None:
        if self.open:
            self._receivers[way](frame)


class Hub:
    """What surrounds the coordinator in its launcher: sessions, connections, ticks."""

    def __init__(
        self,
        scheduler: Scheduler,
        coordinator: Coordinator,
        monitor: Monitor,
        session: type[Session],
    ) -> None:
        self.coordinator = coordinator
        self.new_session = session
        self._scheduler = scheduler
        self._monitor = monitor
        self._sessions: dict[tuple[int, str], Session] = {}
        self._uids: dict[int, str] = {}
        self._connections: dict[int, Connection] = {}
        self.down = False
        """Whether nobody coordinates at the moment."""
        self._tick()

    def hello(self, connection: Connection, hello: m.Hello, *, resumes: bool, first: bytes) -> bool:
        """Take in the first frames of a connection; False if nobody coordinates."""
        if self.down:
            return False
        if not connection.open:
            return True
        name = (hello.slot, hello.pod_uid)
        resumed = resumes and hello.slot in self.coordinator.roster.pods and name in self._sessions
        session = self._sessions[name] if resumed else self.new_session()
        self._sessions[name] = session
        self._uids[hello.slot], self._connections[hello.slot] = hello.pod_uid, connection
        connection.send("down", b"resumed" if resumed else b"fresh %d" % self.term)
        if resumed:
            session.accept(first)
        connection.send("down", session.passing())
        for each in session.resume():
            connection.send("down", each)
        self.handle(Connected(hello, resumed))
        return True

    @property
    def term(self) -> int:
        return self.coordinator.job.term

    def lose(self) -> None:
        """Lose the coordinator with all its connections."""
        self.down = True
        self._sessions.clear()
        self._uids.clear()
        self._connections.clear()

    def take_over(self, coordinator: Coordinator) -> None:
        """Let another coordinator begin."""
        self.coordinator, self.down = coordinator, False

    def frame(self, connection: Connection, slot: int, uid: str, frame: bytes) -> None:
        if self._connections.get(slot) is not connection:
            return
        session = self._sessions[slot, uid]
        payload = session.accept(frame)
        if payload:
            self.handle(Received(slot, m.LAUNCHER.decode(payload)))
            if frame[:4] == bytes(4):
                connection.send("down", session.passing())

    def lost(self, connection: Connection, slot: int, uid: str) -> None:
        if self._connections.get(slot) is connection:
            del self._connections[slot]
            self.handle(Disconnected(slot, uid))

    def handle(self, event: Event) -> None:
        self._monitor.before(event, self._scheduler.now)
        effects = self.coordinator.handle(event, self._scheduler.now)
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect)
        self._monitor.after(effects)

    def _send(self, effect: Send) -> None:
        uid = self._uids.get(effect.slot)
        if uid is None:
            return
        frame = self._sessions[effect.slot, uid].number(m.TO_LAUNCHER.encode(effect.message))
        if effect.slot in self._connections:
            self._connections[effect.slot].send("down", frame)

    def _tick(self) -> None:
        if not self.down:
            self.handle(Ticked())
        self._scheduler.later(TICK_SECONDS, self._tick)
