"""What happens to an election, what it wants done, and its settings."""

from dataclasses import dataclass
from enum import Enum

from dssync.control.adoption import Electorate
from dssync.control.peers import Answer, Leader
from dssync.control.record import Record
from dssync.control.takeover import Launcher


class Phase(Enum):
    """What a launcher is in the election."""

    FOLLOWING = "following"
    """Linked to a coordinator."""
    SUSPECTING = "suspecting"
    """Not linked; the coordinator has a moment to be reached."""
    CANDIDATE = "candidate"
    """Asks the other launchers, and takes over where the rules let it."""
    CHALLENGING = "challenging"
    """Too few answer: waits for the coordinator to answer in the arbiter."""
    LEADING = "leading"
    STEPPING_DOWN = "stepping down"
    """Coordinates until another launcher has taken over."""


@dataclass(frozen=True)
class ElectionSettings:
    """Numbers of the election, in seconds."""

    reconnect_seconds: float = 0.2
    """Time to link again to a coordinator that was lost."""
    link_seconds: float = 1.0
    """Time to link to a coordinator for the first time."""
    ask_seconds: float = 0.1
    """Between two questions; others have that long to answer the first."""
    heard_seconds: float = 0.5
    """An answer is worth this long."""
    block_seconds: float = 10.0
    """Others who are linked to the coordinator stop a candidate for at most so long."""
    challenge_seconds: float = 10.0
    """Time for the coordinator to answer in the arbiter."""
    stagger_seconds: float = 0.1
    """Between the candidates of two slots."""
    look_seconds: float = 0.2
    """Between two looks at the arbiter."""
    retry_seconds: float = 0.5
    """After the arbiter did not answer."""
    may_stand: bool = True
    """Whether this launcher can become coordinator at all."""


# --- what happens to an election --------------------------------------------------------------


@dataclass(frozen=True)
class Linked:
    """This launcher is linked to the coordinator of a term."""

    term: int


@dataclass(frozen=True)
class LinkLost:
    """The link is gone, or the coordinator is silent for longer than its lease."""


@dataclass(frozen=True)
class Heard:
    """Somebody says that there is a coordinator of a new term."""

    leader: Leader


@dataclass(frozen=True)
class Answered:
    """Another launcher answered."""

    answer: Answer


@dataclass(frozen=True)
class Viewed:
    """The coordinator says who the launchers are, and whom it misses."""

    launchers: tuple[Launcher, ...]
    missing: tuple[Launcher, ...] = ()


@dataclass(frozen=True)
class Looked:
    """The arbiter was read."""

    record: Record


@dataclass(frozen=True)
class Swapped:
    """A swap was answered: with what was written, or with None when somebody was faster."""

    record: Record | None


@dataclass(frozen=True)
class ArbiterFailed:
    """The arbiter did not answer; a swap may yet succeed."""


@dataclass(frozen=True)
class ExitsSeen:
    """These launchers have ended for certain."""

    uids: frozenset[str]


@dataclass(frozen=True)
class Appointed:
    """The coordinator of this term leaves and wants this launcher in its place."""

    term: int


@dataclass(frozen=True)
class Resign:
    """This launcher coordinates and wants another one to."""

    successor: Launcher


@dataclass(frozen=True)
class Stay:
    """This launcher wanted another one to coordinate, and nobody does."""


@dataclass(frozen=True)
class Finished:
    """The job is done, as this launcher has heard: whatever is lost from now on is no loss."""

    told: bool = True
    """Its members have heard of it, too. Until then it stands, for them to hear of it."""


@dataclass(frozen=True)
class Ticked:
    """Time went by."""


Event = (
    Linked | LinkLost | Heard | Answered | Viewed | Looked | Swapped | ArbiterFailed
    | ExitsSeen | Appointed | Resign | Stay | Finished | Ticked
)  # fmt: skip


# --- what an election wants -------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """Read the arbiter. Nothing else is asked of it before the answer."""


@dataclass(frozen=True)
class Swap:
    """Swap the arbiter's record. Nothing else is asked of it before the answer."""

    expected: Record
    new: Record


@dataclass(frozen=True)
class AskAll:
    """Ask these launchers for a coordinator, and look whether their processes have ended."""

    launchers: tuple[Launcher, ...]


@dataclass(frozen=True)
class Follow:
    """Link to this coordinator, and again until told otherwise."""

    leader: Leader


@dataclass(frozen=True)
class Lead:
    """Coordinate, and tell the other launchers so."""

    record: Record
    electorate: Electorate
    others: tuple[Launcher, ...]
    age_seconds: float = 0.0
    """As in `Hold`."""


@dataclass(frozen=True)
class Hold:
    """The arbiter still names this coordinator."""

    record: Record
    age_seconds: float = 0.0
    """Since the arbiter was asked; what it said holds for that moment, not for the answer's."""


@dataclass(frozen=True)
class NobodyLeads:
    """The coordinator is lost and nobody can take over, for the arbiter is out of reach."""


@dataclass(frozen=True)
class StepDown:
    """Coordinate no longer."""


@dataclass(frozen=True)
class Fenced:
    """This pod has been replaced: leave."""


@dataclass(frozen=True)
class HandOver:
    """Ask this launcher to take over."""

    successor: Launcher
    term: int


Effect = Look | Swap | AskAll | Follow | Lead | Hold | NobodyLeads | StepDown | Fenced | HandOver
