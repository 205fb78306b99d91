"""What the coordinator wants done, collected while it handles one event."""

from dssync.control import messages as m
from dssync.control.events import Effect, Note, Send
from dssync.control.view import slot_of


class Outbox:
    """Effects in the order in which they were decided."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._last: tuple[m.ToMemberBody | None, str] = (None, "")
        """The last message to a member, and its text: mates are mostly told the very same."""

    def tell(self, key: str, message: m.ToMemberBody) -> None:
        """Send a message to a member, through the launcher of its slot."""
        if message is not self._last[0]:
            self._last = (message, m.TO_MEMBER.encode_text(message))
        self.send(slot_of(key), m.ToMember(key, self._last[1]))

    def send(self, slot: int, message: m.ToLauncher) -> None:
        """Send a message to a launcher."""
        self._effects.append(Send(slot, message))

    def note(self, note: Note) -> None:
        """Tell people and metrics."""
        self._effects.append(note)

    def take(self) -> list[Effect]:
        """Return what has been collected and start anew."""
        effects, self._effects = self._effects, []
        return effects
