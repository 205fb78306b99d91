"""The state of a job on its coordinator, shared by the parts that decide.

``Admission`` lets members in, ``Departures`` lets them go, ``Training`` runs rounds and hands out
data; `coordinator.Coordinator` calls them. None of them keeps state of its own but a queue.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from dssync.control.dispatches import LedgerNews
from dssync.control.events import ControlSettings
from dssync.control.ledger import Ledger
from dssync.control.outbox import Outbox
from dssync.control.quorum import Quorum
from dssync.control.roster import Roster
from dssync.control.rounds import Rounds
from dssync.control.states import ViewLine
from dssync.control.view import View
from dssync.schedule import Settings

VIEWS_KEPT = 16
"""Views that a checkpoint tells of."""


@dataclass
class World:
    """The members that train together and their rounds; exists while somebody holds the state."""

    view: View
    rounds: Rounds
    strict: bool
    latest_arrival: int = -1
    """Highest round that a member has arrived at."""
    reached_seconds: float = -math.inf
    """When that was."""
    pace_seconds: float = math.inf
    """Time between that and the arrival before it."""
    flush_asked: bool = False
    stop_asked: bool = False
    final_frozen: bool = False

    def remove(self, key: str) -> None:
        """Take a member out of the view, if it is in it."""
        if key in self.view:
            self.view = self.view.without(key, self.rounds.settings)


@dataclass
class Job:
    """Everything that the coordinator knows."""

    term: int
    settings: ControlSettings
    roster: Roster = field(default_factory=Roster)
    ledger: Ledger = field(default_factory=Ledger)
    outbox: Outbox = field(default_factory=Outbox)
    world: World | None = None
    lost_world: World | None = None
    """The world whose last member is gone; the next one continues its numbers."""
    views: deque[ViewLine] = field(default_factory=lambda: deque(maxlen=VIEWS_KEPT))
    """The last ones."""
    completed: bool = False
    """The final flush is committed."""
    recorded: bool = False
    """The arbiter's record says so, and everybody is told."""
    last_view: View | None = None
    """The view that completed the job; the world's is left by one member after the other."""
    quorum: Quorum = field(default_factory=Quorum)
    put_out: dict[str, str] = field(default_factory=dict)
    """Members that were put out and may not know it yet, with the uids of their pods."""
    news_sent: int = 0
    restarts: int = 0
    """How often the data have begun to count anew."""
    resigning: bool = False
    """Another launcher is to take over."""

    def news(self) -> LedgerNews:
        """Return one more copy of the ledger, for launchers to keep."""
        self.news_sent += 1
        put_out = tuple(self.put_out)
        return LedgerNews(self.ledger.state, put_out, self.news_sent, self.restarts)

    def place(self, paths: Mapping[str, str]) -> None:
        """Take in where nodes stand; the members of the view are laid out anew if they moved."""
        if paths != self.roster.paths:
            self.roster.paths = paths
            if self.world is not None:
                view = self.world.view
                self.world.view = view.moved({k: self.roster.place_of(k) for k in view.members})

    def layouts(self, world: "World", kind: str) -> Mapping[str, str]:
        """Return what members can average of their optimizers' state, if this round does that."""
        peers, members = self.roster.peers, world.view.members
        if kind == "train" and not peers[members[0]].sync.average_optimizer_state:
            return {}
        return {key: peers[key].moments for key in members}

    def publish(self) -> None:
        """Give every launcher a copy of the ledger, once there is one."""
        if self.ledger.total:
            news = self.news()
            for slot in self.roster.pods:
                self.outbox.send(slot, news)
            if self.world is not None and not self.world.rounds.committed:
                self.world.rounds.hearsay.covered()

    def new_rounds(self, settings: Settings) -> Rounds:
        """Return rounds of this term that nobody has frozen yet."""
        return Rounds(self.term, settings, self.settings.deadline, self.outbox.tell)

    def may_decide(self, now: float) -> bool:
        """Tell whether rounds may be frozen and committed now."""
        return not self.quorum.holds(now)
