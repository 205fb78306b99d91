"""A job as its coordinator sees it, driven message by message."""

from collections.abc import Iterable

from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.deadline import DeadlineSettings
from dssync.control.events import (
    Connected,
    ControlSettings,
    Disconnected,
    Effect,
    Event,
    Note,
    Received,
    Recorded,
    Send,
    Ticked,
)
from dssync.control.view import slot_of

MODEL = ("w float32 3",)
SYNC = m.SyncSettings("allreduce", 4, 1, "relaxed", 0)


class JobOnPaper:
    """A coordinator and what it has said; time moves only when told."""

    def __init__(
        self,
        desired: int = 1,
        sync: m.SyncSettings = SYNC,
        ahead_seconds: float = 0.0,
        any_side: bool = False,
    ) -> None:
        deadline = DeadlineSettings(warmup_seconds=5.0, reply_seconds=1.0)
        settings = ControlSettings(
            desired=desired,
            minimum=1,
            ahead_seconds=ahead_seconds,
            any_side=any_side,
            deadline=deadline,
        )
        self.coordinator = Coordinator(1, settings)
        self.sync = sync
        self.now = 0.0
        self.told: list[tuple[str, object]] = []
        """Members' keys and what they were told."""
        self.sent: list[tuple[int, object]] = []
        """Slots and what their launchers were told."""
        self.notes: list[Note] = []
        self.records = True
        """The arbiter's record says at once that the job is done."""
        self.roster: tuple[str, ...] = ()
        """The members of the first world."""

    # --- what happens -------------------------------------------------------------------------

    def connect(self, slot: int, workers: int = 1, uid: str = "") -> None:
        hello = m.Hello(slot, uid or f"pod{slot}", workers, ("", "", f"node{slot}"))
        self._take(self.coordinator.handle(Connected(hello), self.now))

    def disconnect(self, slot: int) -> None:
        self._take(self.coordinator.handle(Disconnected(slot, f"pod{slot}"), self.now))

    def hear(self, slot: int, message: m.FromLauncher) -> None:
        self._take(self.coordinator.handle(Received(slot, message), self.now))

    def says(self, key: str, *messages: m.FromMemberBody) -> None:
        for message in messages:
            self.hear(slot_of(key), m.FromMember(key, m.MEMBER.encode_text(message)))

    def wait(self, seconds: float, *beating: int) -> None:
        """Let time go by, tick by tick; the launchers in ``beating`` stay alive."""
        for _ in range(round(seconds / 0.1)):
            self.now += 0.1
            for slot in beating:
                self.hear(slot, m.Heartbeat(()))
            self._take(self.coordinator.handle(Ticked(), self.now))

    def enters(self, *keys: str, applied_round: int = -1) -> None:
        for key in keys:
            self.says(key, m.Enter(MODEL, self.sync, f"{key}:1", applied_round))

    def loads(self, *keys: str) -> None:
        """Let members get the state of the donor that they were sent to."""
        for key in keys:
            self.says(key, m.Loaded(self.last(key, m.Fetch).donor))

    def begin(self, *keys: str) -> None:
        """Form a world of these members, one pod each, and freeze round 0."""
        self.roster = keys
        for key in keys:
            self.connect(slot_of(key))
        self.enters(*keys)
        self.loads(*(key for key in keys if any(self.of(key, m.Fetch))))

    def joins(self, key: str) -> None:
        """Let a member of a new pod come in."""
        self.connect(slot_of(key))
        self.enters(key)
        self.loads(key)

    def arrive(self, *keys: str, round: int = 0, idle: bool = False) -> None:
        """Let members arrive at their latest attempt of a round."""
        for key in keys:
            attempt = self.assignment(key, round).attempt
            self.says(key, m.Arrive(round, attempt, idle))

    def apply(self, *keys: str, round: int = 0, batches: tuple[int, ...] = ()) -> None:
        """Let members apply their latest attempt of a round."""
        for key in keys:
            attempt = self.assignment(key, round).attempt
            self.says(key, m.Applied(round, attempt, batches))

    def takes(self, event: Event) -> None:
        """Let something else happen to the coordinator."""
        self._take(self.coordinator.handle(event, self.now))

    # --- what was said ------------------------------------------------------------------------

    def of(self, key: str, kind: type) -> list[object]:
        return [body for told, body in self.told if told == key and isinstance(body, kind)]

    def last(self, key: str, kind: type) -> object:
        return self.of(key, kind)[-1]

    def assignment(self, key: str, round: int | None = None) -> m.Assign:
        found = [a for a in self.of(key, m.Assign) if round is None or a.round == round]
        return found[-1]

    def weight(self, key: str, round: int | None = None) -> float:
        return self.assignment(key, round).stages[0].weight

    def mates(self, key: str, round: int = 0) -> tuple[str, ...]:
        stages = self.assignment(key, round).stages
        return stages[0].members if stages else ()

    def _take(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(_, m.ToMember(key, body)):
                    self.told.append((key, m.TO_MEMBER.decode(body)))
                case Send(slot, message):
                    self.sent.append((slot, message))
                case Note():
                    self.notes.append(effect)
                    if effect.kind == "completed" and self.records:
                        self.takes(Recorded())
