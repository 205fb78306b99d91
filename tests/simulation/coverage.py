"""Which (state, event) pairs of the control plane the seeds have reached."""

from collections import Counter
from itertools import product

from dssync.control import ballots, messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import Connected, Disconnected, Event, Received, Ticked
from dssync.control.exchange import Exchange
from dssync.control.roster import Phase
from simulation import wire

PHASES = ("unknown", *(phase.value for phase in Phase))
MEMBER_EVENTS = (
    *(kind.__name__ for kind in m.FromMemberBody.__args__), "Exited", "Drain", "pod lost",
)  # fmt: skip
EXCHANGES = ("none", "fresh", "running", "collecting", "decided")
ROUND_EVENTS = (
    "Arrive", "Confirm", "Applied", "Abandoned", "Failed", "Leave", "Exited", "pod lost",
    "deadline",
)  # fmt: skip

ELECTION_PHASES = tuple(phase.value for phase in ballots.Phase)
ELECTION_EVENTS = tuple(kind.__name__ for kind in ballots.Event.__args__)
_ABOUT_ROUNDS = frozenset({"Arrive", "Confirm", "Applied", "Abandoned", "Failed"})

Pair = tuple[str, str]


class Coverage:
    """Counts pairs of (phase of a member, event) and (state of an exchange, event)."""

    def __init__(self) -> None:
        self.phases: Counter[Pair] = Counter()
        self.exchanges: Counter[Pair] = Counter()
        self.elections: Counter[Pair] = Counter()
        """Filled by the observer of the elections."""

    def observe(self, coordinator: Coordinator, event: Event, now: float) -> None:
        """Count what meets this event; called before it is handled."""
        if type(event) is Received and type(event.message) is m.FromMember:
            self._said(coordinator, event.message.member, wire.from_member(event.message.body))
        else:
            self._happened(coordinator, event, now)

    def _said(self, coordinator: Coordinator, key: str, message: object) -> None:
        kind = type(message).__name__
        self._member(coordinator, key, kind)
        if kind in _ABOUT_ROUNDS:
            self.exchanges[_find(coordinator, key, message.round), kind] += 1  # type: ignore[attr-defined]
        elif kind == "Leave":
            self._every_exchange(coordinator, key, "Leave")

    def _happened(self, coordinator: Coordinator, event: Event, now: float) -> None:
        match event:
            case Received(_, m.Exited(key, _, _)):
                self._member(coordinator, key, "Exited")
                self._every_exchange(coordinator, key, "Exited")
            case Received(slot, m.Drain()):
                for key in coordinator.roster.of_slot(slot):
                    self._member(coordinator, key, "Drain")
            case Connected(hello):
                pod = coordinator.roster.pods.get(hello.slot)
                if pod is not None and pod.uid != hello.pod_uid:
                    self._pod_lost(coordinator, hello.slot)
            case Disconnected(slot, _):
                self._pod_lost(coordinator, slot)
            case Ticked():
                self._deadlines(coordinator, now)

    def merge(self, other: "Coverage") -> None:
        self.phases.update(other.phases)
        self.exchanges.update(other.exchanges)
        self.elections.update(other.elections)

    def report(self) -> str:
        """Return the pairs reached with their counts, and those not reached."""
        return "\n".join(
            [
                *_table("member phase", PHASES, MEMBER_EVENTS, self.phases),
                *_table("exchange", EXCHANGES, ROUND_EVENTS, self.exchanges),
                *_table("election", ELECTION_PHASES, ELECTION_EVENTS, self.elections),
            ]
        )

    def _member(self, coordinator: Coordinator, key: str, event: str) -> None:
        peer = coordinator.roster.peers.get(key)
        self.phases["unknown" if peer is None else peer.phase.value, event] += 1

    def _every_exchange(self, coordinator: Coordinator, key: str, event: str) -> None:
        for exchange in _exchanges(coordinator):
            if key in exchange.members:
                self.exchanges[_state(exchange), event] += 1

    def _pod_lost(self, coordinator: Coordinator, slot: int) -> None:
        for key in coordinator.roster.of_slot(slot):
            self._member(coordinator, key, "pod lost")
            self._every_exchange(coordinator, key, "pod lost")

    def _deadlines(self, coordinator: Coordinator, now: float) -> None:
        for exchange in _exchanges(coordinator):
            if exchange.deadline_seconds is not None and now >= exchange.deadline_seconds:
                self.exchanges[_state(exchange), "deadline"] += 1


def _exchanges(coordinator: Coordinator) -> list[Exchange]:
    world = coordinator.world
    return [] if world is None else world.rounds.exchanges()


def _find(coordinator: Coordinator, key: str, number: int) -> str:
    world = coordinator.world
    exchange = None if world is None else world.rounds._find(key, number)
    return "none" if exchange is None else _state(exchange)


def _state(exchange: Exchange) -> str:
    if exchange.collecting:
        return "collecting"
    if exchange.decided:
        return "decided"
    return "running" if exchange.arrived else "fresh"


def _table(
    title: str, rows: tuple[str, ...], columns: tuple[str, ...], counts: Counter[Pair]
) -> list[str]:
    pairs = list(product(rows, columns))
    reached = [
        f"{row}/{column} {counts[row, column]}" for row, column in pairs if counts[row, column]
    ]
    missing = [f"{row}/{column}" for row, column in pairs if not counts[row, column]]
    return [
        f"{title}: {len(reached)} of {len(pairs)} pairs reached: {', '.join(reached)}",
        f"{title}: not reached: {', '.join(missing) or 'none'}",
    ]
