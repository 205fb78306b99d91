"""What launchers say to each other when they look for a coordinator, and what they make of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from dssync.control.codec import Codec, Message, Record
from dssync.control.takeover import Launcher


class Leader(Record, frozen=True):
    """A coordinator and where it is."""

    term: int
    uid: str
    address: str


class Ask(Message, frozen=True):
    """Is there a coordinator that you are linked to?"""

    uid: str
    """Who asks."""


class Answer(Message, frozen=True):
    """Who answers, and the coordinator that it is linked to, or is itself; None without one."""

    uid: str
    leader: Leader | None


class Elected(Message, frozen=True):
    """There is a coordinator of a new term."""

    leader: Leader


PEER = Codec((Ask, Answer, Elected))


@dataclass(frozen=True)
class Ballot:
    """How a candidate stands among the launchers of the last view. Sets hold pod uids."""

    me: str
    view: frozenset[str]
    reached: frozenset[str]
    """Launchers that answered lately."""
    gone: frozenset[str]
    """Launchers whose exits are confirmed."""

    @property
    def unconfirmed(self) -> frozenset[str]:
        """Launchers that do not answer and may live."""
        return self.view - self.reached - self.gone - {self.me}

    @property
    def may_swap(self) -> bool:
        """Whether nobody else can be coordinator: more than half are here, or all others ended."""
        here = len((self.reached | {self.me}) & self.view)
        return not self.unconfirmed or 2 * here > len(self.view)

    @property
    def is_guest(self) -> bool:
        """Whether this is for others to decide: the candidate is new, and some of them live."""
        return self.me not in self.view and bool(self.view & self.reached)


def rank(launchers: Iterable[Launcher], uid: str) -> int:
    """Return how many of some launchers come before one, by slot."""
    ordered = sorted(launchers, key=lambda each: (each.slot, each.uid))
    return next((n for n, each in enumerate(ordered) if each.uid == uid), len(ordered))
