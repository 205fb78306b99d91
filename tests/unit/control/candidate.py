"""One launcher's election on paper."""

from dataclasses import replace

from dssync import contract
from dssync.control import ballots as b
from dssync.control.ballots import ElectionSettings
from dssync.control.election import Election
from dssync.control.peers import Answer, Leader
from dssync.control.record import Record, launchers_value
from dssync.control.takeover import Launcher

SETTINGS = ElectionSettings()
LAUNCHERS = tuple(Launcher(n, f"pod{n}", f"host:{n}", "") for n in range(8))
FIRST = Leader(1, "pod0", "host:0")
RECORD = Record(
    "1",
    "pod0",
    1,
    {
        contract.RECORD_ADDRESS: "host:0",
        contract.RECORD_LAUNCHERS: launchers_value(LAUNCHERS),
    },
)


class Candidate:
    """One launcher's election; time moves only when told, and the arbiter answers at once."""

    def __init__(self, slot: int = 1, view: tuple[Launcher, ...] = LAUNCHERS) -> None:
        self.now = 0.0
        self.record = RECORD
        self.reachable = True
        self.writes_late = False
        self._unwritten: list[b.Swap] = []
        self.answers: dict[str, Answer] = {}
        self.did: list[b.Effect] = []
        self.election = Election(LAUNCHERS[slot], SETTINGS, 0.0)
        self.does(b.Ticked())
        self.does(b.Linked(1), b.Viewed(view))
        self.did.clear()

    def does(self, *events: b.Event) -> None:
        pending = list(events)
        while pending:
            for effect in self.election.handle(pending.pop(0), self.now):
                self.did.append(effect)
                if self.writes_late and isinstance(effect, b.Swap):
                    self._unwritten.append(effect)
                else:
                    pending += self._result(effect)

    def _result(self, effect: b.Effect) -> list[b.Event]:
        match effect:
            case b.Look():
                return [b.Looked(self.record) if self.reachable else b.ArbiterFailed()]
            case b.Swap(expected, new):
                if not self.reachable:
                    return [b.ArbiterFailed()]
                if expected.version != self.record.version:
                    return [b.Swapped(None)]
                self.record = replace(new, version=str(int(expected.version) + 1))
                return [b.Swapped(self.record)]
            case b.AskAll(launchers):
                known = [self.answers.get(each.uid) for each in launchers]
                return [b.Answered(each) for each in known if each is not None]
        return []

    def writes(self) -> None:
        """Let the arbiter do what it was asked to."""
        self.writes_late, pending = False, self._unwritten
        for swap in pending:
            self.does(*self._result(swap))

    def waits(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.05
            self.does(b.Ticked())

    def hears_from(self, slots: range, leader: Leader | None = None) -> None:
        self.answers = {f"pod{slot}": Answer(f"pod{slot}", leader) for slot in slots}

    @property
    def led(self) -> list[b.Lead]:
        return [each for each in self.did if isinstance(each, b.Lead)]
