"""What of a view log is played again, and by whom."""

import pytest
from msgspec.structs import replace

from dssync.control.messages import Assign, Stage
from dssync.control.replay import ACTS, Donates, Ending, Part, Round, parts_of
from dssync.control.states import SyncSettings
from dssync.control.viewlog import (
    FORMAT,
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
    line_of,
    records_in,
)
from dssync.errors import ReplayError

SYNC = SyncSettings("grid", 4, 1, "relaxed", 0)
START = Point(0, 0, -1)
A, B, C = "0.0.a", "0.1.b", "0.2.c"


def life(member: str) -> Life:
    return Life(member, FORMAT, SYNC, 1, ("RANK=0",))


def entered(member: str, source: str = "", taken: Point | None = None, round_: int = 0) -> Entered:
    return Entered(member, 0, source, taken, round_, ())


def attempt(
    member: str, number: int, mates: tuple[str, ...], drawn: int, retry: int = 0
) -> Attempt:
    stages = (Stage(f"{number}-{retry}", mates, 1 / len(mates)),)
    assign = Assign(
        round=number,
        attempt=retry,
        kind="train",
        strict=False,
        stages=stages,
        retire=(),
        world_size=2,
        view=1,
        first=A,
        cause="",
        weighted=True,
        progress=0.0,
        period=1,
    )
    return Attempt(member, 1, False, "1", assign, (Draw(0, drawn),))


def left(member: str) -> Left:
    return Left(member, True, "bits", ())


def beginning() -> list[Told]:
    return [life(A), life(B), Donated(A, START, ()), entered(A), entered(B, A, START)]


def names(part: Part) -> list[str]:
    return [type(act).__name__ for act in part.acts]


def test_who_was_killed_plays_as_far_as_its_values_went() -> None:
    log = [*beginning(), attempt(A, 0, (A, B), 1), attempt(B, 0, (A, B), 2), Applied(A, 0, 0)]
    log += [attempt(A, 1, (A,), 3), Applied(A, 1, 0), left(A)]

    parts = parts_of(log)

    assert names(parts[A]) == ["Entered", "Donates", "Round", "Round", "Left"]
    assert names(parts[B]) == ["Entered", "Round"]
    assert [act.applied for act in parts[B].rounds] == [False]
    assert (parts[A].stays, parts[B].stays) == (True, False)


def test_an_attempt_that_nobody_applied_is_left_out_but_what_was_drawn_for_it_is_not() -> None:
    log = [*beginning(), attempt(A, 0, (A, B), 1), attempt(B, 0, (A, B), 2)]
    again = attempt(A, 0, (A,), 0, retry=1)
    log += [replace(again, drawn=()), Applied(A, 0, 1), left(A)]

    parts = parts_of(log)

    assert [(act.name, act.drawn) for act in parts[A].rounds] == [((0, 1), (Draw(0, 1),))]
    assert names(parts[B]) == ["Entered"]


def test_a_donor_waits_once_for_all_joiners_of_a_moment() -> None:
    late = Point(0, 1, 0)
    log = [*beginning(), life(C), attempt(A, 0, (A,), 1), Applied(A, 0, 0)]
    log += [Donated(A, late, (Draw(0, 4),)), Donated(A, late, ()), Donated(A, Point(0, 2, 0), ())]
    log += [entered(C, A, late, 1), left(A)]

    acts = parts_of(log)[A].acts

    assert [act for act in acts if isinstance(act, Donates)] == [
        Donates(START, 1, ()),
        Donates(late, 1, (Draw(0, 4),)),
    ]


def test_a_copy_that_was_taken_during_a_sum_is_of_the_values_before_it() -> None:
    during = Point(0, 1, -1)
    log = [*beginning(), life(C), attempt(A, 0, (A,), 1), Donated(A, during, ())]
    log += [entered(C, A, during, 1), Applied(A, 0, 0), left(A)]

    *_, donates, summed, _ = parts_of(log)[A].acts

    assert donates == Donates(during, 1, (Draw(0, 1),))
    assert isinstance(summed, Round)
    assert summed.drawn == ()


def test_a_replay_ends_before_a_later_round_and_without_later_joiners() -> None:
    log = [
        *beginning(),
        life(C),
        attempt(A, 0, (A,), 1),
        Applied(A, 0, 0),
        Skipped(B, 1, False, ()),
    ]
    log += [Donated(A, Point(0, 1, 0), ()), entered(C, A, Point(0, 1, 0), 2)]
    log += [attempt(A, 1, (A,), 2), Applied(A, 1, 0), attempt(A, 2, (A,), 3), Applied(A, 2, 0)]

    parts = parts_of(log, until=1)

    assert parts.keys() == {A, B}
    assert [act.name for act in parts[A].rounds] == [(0, 0), (1, 0)]
    assert parts[A].stays
    assert not any(isinstance(act, Donates) and act.point.steps for act in parts[A].acts)


def test_a_log_that_lacks_a_mate_is_refused_by_its_name() -> None:
    log = [life(A), entered(A), attempt(A, 0, (A, B), 1), Applied(A, 0, 0), left(A)]

    with pytest.raises(ReplayError, match=f"round 0 of {A} has values of {B}"):
        parts_of(log)


def test_a_log_that_lacks_a_donor_is_refused() -> None:
    with pytest.raises(ReplayError, match=f"{B} has the state of {A}"):
        parts_of([life(B), entered(B, A, START)])


def test_an_empty_log_is_refused() -> None:
    with pytest.raises(ReplayError, match="nothing to replay"):
        parts_of([life(A)])


def test_a_line_that_a_crash_has_cut_off_is_passed_over_and_others_are_named() -> None:
    lines = [line_of(record) for record in beginning()]

    assert list(records_in([*lines, lines[0][:-9]], "log")) == beginning()
    with pytest.raises(ReplayError, match="line 2 of log"):
        list(records_in([lines[0], b'["Nonsense"]\n', *lines], "log"))
    with pytest.raises(ReplayError, match=f"format 1, expected {FORMAT}"):
        list(records_in([line_of(replace(life(A), format=1))], "log"))


def test_a_part_travels_to_its_worker_as_lines() -> None:
    log = [*beginning(), attempt(A, 0, (A,), 1), Applied(A, 0, 0), left(A)]
    part = parts_of(log)[A]

    decoded = [ACTS.decode(line) for line in part.lines]

    assert decoded == [*part.acts, Ending(stays=True)]
    assert isinstance(decoded[2], Round)
