"""What a member has said and been given, as far as a coordinator of a new term must know it."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from dssync.control import messages as m
from dssync.control.provisional import Provisional
from dssync.control.takeover import Vote

VOTES_KEPT = 8
"""Strict rounds that a member remembers to have applied; its mates are fewer rounds behind."""


@dataclass
class History:
    """The part of a member's past that outlives its coordinator."""

    enter: str = ""
    """Its hello, encoded."""
    donor: str = ""
    register: str = ""
    """What it said of the data, encoded."""
    flush_asked: bool = False
    stop_asked: bool = False
    confirmed: m.Confirm | None = None
    applied_round: int = -1
    known_round: int = -1
    counts: bool = False
    """Its values count: it has applied a sum, or was given weight where nobody had any."""
    applied: deque[Vote] = field(default_factory=lambda: deque(maxlen=VOTES_KEPT))
    provisional: Provisional = field(default_factory=Provisional)
    _takes: dict[int, m.Take] = field(default_factory=dict)

    def said(self, message: m.FromMemberBody) -> None:
        """Note what the member tells the coordinator."""
        match message:
            case m.Enter():
                self.enter, self.donor = m.MEMBER.encode_text(message), ""
                self.applied_round = message.applied_round
            case m.Loaded(donor):
                self.donor = donor
            case m.Confirm():
                self.confirmed = message
            case m.Register():
                self.register = m.MEMBER.encode_text(message)
            case m.Take(_, track):
                self._takes[track] = message
            case m.AskFlush():
                self.flush_asked = True
            case m.AskStop():
                self.stop_asked = True
            case m.Leave():
                self.enter = ""
            case _:
                pass

    def apply(self, assign: m.Assign) -> None:
        """Note that an attempt is applied."""
        self.applied_round = assign.round
        self.provisional.applied(assign)
        self.counts = self.counts or bool(assign.stages)
        if assign.strict:
            self.applied.append(vote_on(assign, decided=True))
        if assign.kind != "train":
            self.flush_asked = False

    def takes(self, tracks: Iterable[int]) -> list[m.Take]:
        """Return the latest requests for batches of some tracks."""
        found = (self._takes.get(track) for track in tracks)
        return [each for each in found if each is not None]


def vote_on(assign: m.Assign, *, decided: bool, batches: tuple[int, ...] = ()) -> Vote:
    """Return what a member knows of a strict attempt."""
    mates = tuple(sorted({mate for stage in assign.stages for mate in stage.members}))
    return Vote(assign.round, assign.attempt, assign.kind, mates, decided, batches)
