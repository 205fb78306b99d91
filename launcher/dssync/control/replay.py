"""From a view log to the parts that each member plays when the job is run again. Pure.

Only what has left a trace in somebody's values is played: attempts that a member of their group
applied, with everybody who gave values to them, rounds that a member had trained for, and copies
of state that a joiner took. An attempt that was given up by all changed nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from dssync.control.codec import Codec, Message
from dssync.control.messages import Assign
from dssync.control.viewlog import (
    CHECKPOINT,
    Applied,
    Attempt,
    Donated,
    Draw,
    Entered,
    Left,
    Life,
    Point,
    Skipped,
    Told,
)
from dssync.errors import ReplayError


class Round(Message, frozen=True):
    """A member's part in an attempt that somebody applied."""

    assign: Assign
    idle: bool
    total: str
    """Of the values that it staged."""
    applied: bool
    """Whether it applied the attempt itself."""
    drawn: tuple[Draw, ...]

    @property
    def name(self) -> tuple[int, int]:
        """Round and attempt."""
        return self.assign.round, self.assign.attempt

    @property
    def members(self) -> frozenset[str]:
        """Who gives values, or only receives; nobody where nothing is summed."""
        return frozenset(key for stage in self.assign.stages for key in stage.members)


class Donates(Message, frozen=True):
    """A member waits at a point until so many joiners have its state."""

    point: Point
    joiners: int
    drawn: tuple[Draw, ...]


class Ending(Message, frozen=True):
    """What becomes of a member when it has played its part."""

    stays: bool
    """It was there at the round at which the replay ends, so its values are wanted."""


Act = Round | Donates | Skipped | Entered | Left
ACTS: Final = Codec((*Act.__args__, Ending))

_Own = Entered | Donated | Attempt | Skipped | Left


@dataclass
class Part:
    """Everything that one worker process does."""

    life: Life
    acts: list[Act] = field(default_factory=list)
    stays: bool = False
    """See ``Ending``."""

    @property
    def entries(self) -> list[Entered]:
        """How it comes in, and in again."""
        return [act for act in self.acts if isinstance(act, Entered)]

    @property
    def rounds(self) -> list[Round]:
        """The attempts that it takes part in."""
        return [act for act in self.acts if isinstance(act, Round)]

    @property
    def points(self) -> list[Point]:
        """When it gives its state to joiners."""
        return [act.point for act in self.acts if isinstance(act, Donates)]

    @property
    def lines(self) -> list[str]:
        """The part, written down for its worker."""
        return [ACTS.encode_text(each) for each in (*self.acts, Ending(self.stays))]


def parts_of(records: Iterable[Told], until: int | None = None) -> dict[str, Part]:
    """Return the part of everybody who came in.

    Args:
        records: of a whole log.
        until: the last round that is played; None: all.

    Raises:
        ReplayError: there is nothing to play, or a part of it is missing.
    """
    listed = list(records)
    parts = {each.member: Part(each) for each in listed if isinstance(each, Life)}
    told: dict[str, list[_Own]] = defaultdict(list)
    for each in listed:
        if isinstance(each, _Own):
            told[each.member].append(each)
    for member, own in told.items():
        if member not in parts:
            raise ReplayError(f"the log does not tell how {member} began: it is not whole")
        own, parts[member].stays = _until(own, until)
        told[member] = own
    _play(parts, told, {_key(r) for r in listed if isinstance(r, Applied)})
    present = {member: part for member, part in parts.items() if part.acts}
    _check(present)
    return present


def _until(records: list[_Own], last_round: int | None) -> tuple[list[_Own], bool]:
    """Return what comes before the end of a replay, and whether the member is there at the end."""
    for number, record in enumerate(records):
        if last_round is not None and _round_of(record) > last_round:
            return records[:number], number > 0
    return records, bool(records) and isinstance(records[-1], Left)


def _round_of(record: _Own) -> int:
    match record:
        case Attempt(assign=assign):
            return assign.round
        case Skipped(round=number) | Entered(first_round=number):
            return number
        case _:
            return -1


def _play(
    parts: dict[str, Part], told: dict[str, list[_Own]], applied: set[tuple[str, int, int]]
) -> None:
    """Turn what members told into what they do."""
    counted = {
        _group(each.assign)
        for own in told.values()
        for each in own
        if isinstance(each, Attempt) and (each.member, *_name(each.assign)) in applied
    }
    joiners = Counter(
        (each.source, each.taken)
        for own in told.values()
        for each in own
        if isinstance(each, Entered) and each.taken is not None
    )
    for member, own in told.items():
        before: tuple[Draw, ...] = ()
        for each in own:
            act: Act | None
            match each:
                case Attempt():
                    own_result = (member, *_name(each.assign)) in applied
                    act = _round(each, own_result, _group(each.assign) in counted)
                case Donated(point=point):
                    # Copies of one moment are the same: all joiners get the first.
                    count = joiners.pop((member, point), 0)
                    act = Donates(point, count, each.drawn) if count else None
                case _:
                    act = each
            if act is None:
                before += each.drawn
                continue
            _add(parts[member].acts, replace(act, drawn=(*before, *each.drawn)))
            before = ()


def _add(acts: list[Act], act: Act) -> None:
    """Add an act, where it is played: copies for joiners are written down later than other things.

    Whoever forms the first world gives its state away before it is let in, and whoever waits for a
    sum gives the state that it came with.
    """
    later: list[Act] = []
    if isinstance(act, Entered):
        while acts and isinstance(acts[-1], Donates) and _is_of(acts[-1], act):
            later.insert(0, acts.pop())
    elif isinstance(act, Donates):
        while acts and isinstance(acts[-1], Round) and acts[-1].assign.round > act.point.round:
            later.insert(0, acts.pop())
    drawn = tuple(each for other in later for each in other.drawn)
    acts.append(replace(act, drawn=(*drawn, *act.drawn)))
    acts += [replace(each, drawn=()) for each in later]


def _is_of(act: Donates, entered: Entered) -> bool:
    return act.point.generation == entered.generation


def _round(record: Attempt, applied: bool, counted: bool) -> Round | None:
    if not applied and not (record.assign.stages and counted):
        return None
    return Round(record.assign, record.idle, record.total, applied, record.drawn)


def _name(assign: Assign) -> tuple[int, int]:
    return assign.round, assign.attempt


def _key(record: Applied) -> tuple[str, int, int]:
    return record.member, record.round, record.attempt


def _group(assign: Assign) -> tuple[object, ...]:
    """Return what the members of one attempt call it by; a flush has one group."""
    communicators = [stage.communicator for stage in assign.stages]
    what = communicators if assign.kind == "train" else [assign.kind, str(assign.view)]
    return (*_name(assign), *what)


def _check(parts: dict[str, Part]) -> None:
    """See that everybody is there whom somebody needs.

    Raises:
        ReplayError: nobody is, or the log lacks somebody.
    """
    if not parts:
        raise ReplayError("the log holds no member that came in: there is nothing to replay")
    played = {(member, *act.name) for member, part in parts.items() for act in part.rounds}
    for member, part in parts.items():
        if part.life.sync.backend != "gloo":
            raise ReplayError(
                f"{member} averaged over {part.life.sync.backend}: only gloo adds up in the same "
                "order again"
            )
        for source in (each.source for each in part.entries):
            if source and not source.startswith(CHECKPOINT) and source not in parts:
                raise ReplayError(f"{member} has the state of {source}, whom the log lacks")
        for act in part.rounds:
            for mate in act.members:
                if (mate, *act.name) not in played:
                    raise ReplayError(
                        f"round {act.assign.round} of {member} has values of {mate}, whose part "
                        "in it the log lacks: put the logs of all pods together"
                    )
