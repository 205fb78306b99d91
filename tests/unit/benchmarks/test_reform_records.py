"""What the re-form benchmark concludes from what members tell."""

from collections.abc import Iterable

import pytest

from benchmarks.reform.overhead import duration
from benchmarks.reform.pods import batches_lost, stalls
from benchmarks.reform.records import (
    PERIOD,
    History,
    Hit,
    first_hit,
    reformed_seconds,
    retries_elsewhere,
)
from benchmarks.reform.trainer import own_value

MEMBERS = tuple(f"0.{rank}.aa" for rank in range(8))
FIRST, SECOND = MEMBERS[:4], MEMBERS[4:]
VICTIM = MEMBERS[0]
SURVIVORS = frozenset(MEMBERS[1:])


def mean(members: Iterable[str], number: int) -> float:
    values = [own_value(member, number) for member in members]
    return sum(values) / len(values)


def add(
    history: History, member: str, number: int, members: tuple[str, ...], **fields: object
) -> None:
    """A round of one member; right, at the first attempt and at a second per round, unless said."""
    value = mean(members, number)
    line = {
        "event": "round",
        "pid": 1,
        "time": float(number),
        "member": member,
        "round": number,
        "kind": "train",
        "attempts": 0,
        "result": "committed",
        "members": members,
        "seconds": 0.01,
        "world": 8,
        "low": value,
        "high": value,
        "batch": 0,
    }
    history.add({**line, **fields})


@pytest.fixture
def history() -> History:
    """A quiet world; its victim dies after a whole period of the schedule."""
    history = History()
    for number in range(PERIOD + 1):
        for group in (FIRST, SECOND):
            for member in group:
                add(history, member, number, group)
    return history


def retry(history: History, number: int, **fields: object) -> None:
    """The victim's mates commit without it, one after the other."""
    for place, member in enumerate(FIRST[1:]):
        time = number + 0.1 * place
        add(history, member, number, FIRST[1:], attempts=1, time=time, **fields)


def test_a_group_is_back_when_its_last_survivor_has_committed(history: History) -> None:
    retry(history, PERIOD + 1)

    hit = first_hit(history, VICTIM, SURVIVORS)

    assert hit == Hit(PERIOD + 1, FIRST)
    killed = PERIOD + 0.5
    assert reformed_seconds(history, hit, (VICTIM,), killed) == pytest.approx(0.7)


def test_a_group_is_not_back_while_one_survivor_is_missing(history: History) -> None:
    for member in FIRST[1:3]:
        add(history, member, PERIOD + 1, FIRST[1:], attempts=1)

    assert first_hit(history, VICTIM, SURVIVORS) is None


def test_a_round_that_the_dead_one_still_finished_is_not_the_hit_one(history: History) -> None:
    for member in FIRST[1:]:
        add(history, member, PERIOD + 1, FIRST)
    retry(history, PERIOD + 2)

    hit = first_hit(history, VICTIM, SURVIVORS)

    assert hit is not None
    assert hit.round == PERIOD + 2


def test_a_wrong_mean_is_no_re_forming(history: History) -> None:
    retry(history, PERIOD + 1, low=mean(FIRST, PERIOD + 1))

    hit = first_hit(history, VICTIM, SURVIVORS)

    assert hit is not None
    with pytest.raises(RuntimeError, match="wrong result"):
        reformed_seconds(history, hit, (VICTIM,), PERIOD + 0.5)


def test_the_result_of_another_round_is_wrong(history: History) -> None:
    late = mean(FIRST, PERIOD)

    add(history, FIRST[1], PERIOD + 1, FIRST, low=late, high=late)

    assert [record.round for record in history.wrong()] == [PERIOD + 1]


def test_a_skipped_round_is_wrong(history: History) -> None:
    add(history, FIRST[1], PERIOD + 1, FIRST, result="skipped")

    assert len(history.wrong()) == 1


def test_a_joiner_may_count_only_after_its_first_round(history: History) -> None:
    joiner, group = "0.0.bb", ("0.0.bb", *FIRST[1:])
    history.add({"event": "joined", "pid": 2, "time": 5.0, "member": joiner, "round": 5})
    without = mean(FIRST[1:], 5)

    add(history, FIRST[1], 5, group, low=without, high=without)
    add(history, FIRST[1], 6, group)
    assert history.wrong() == []

    add(history, FIRST[2], 5, group)
    assert [record.member for record in history.wrong()] == [FIRST[2]]


def test_who_leaves_brings_the_values_of_the_round_before(history: History) -> None:
    leaver, number = FIRST[0], PERIOD + 1
    history.add({"event": "left", "pid": 1, "time": 6.0, "member": leaver})
    values = [mean(FIRST, PERIOD), *(own_value(member, number) for member in FIRST[1:])]

    for member in FIRST[1:]:
        add(history, member, number, FIRST, low=sum(values) / 4, high=sum(values) / 4)

    assert history.wrong() == []


def test_only_retries_of_groups_without_a_victim_are_elsewhere(history: History) -> None:
    retry(history, PERIOD + 1)
    hit = Hit(PERIOD + 1, FIRST)
    assert retries_elsewhere(history, PERIOD, (VICTIM,), (hit,)) == 0

    add(history, SECOND[0], PERIOD + 1, SECOND, attempts=1)
    assert retries_elsewhere(history, PERIOD, (VICTIM,), (hit,)) == 1


def test_a_retry_long_after_the_kill_is_elsewhere(history: History) -> None:
    for number in range(PERIOD + 1, PERIOD + 6):
        retry(history, number)

    hit = Hit(PERIOD + 1, FIRST)

    assert retries_elsewhere(history, PERIOD, (VICTIM,), (hit,)) == 3


def test_a_stall_is_the_time_beyond_the_rounds_that_were_done() -> None:
    history = History()
    for number, time in enumerate((0.0, 1.0, 2.5, 3.5, 4.5)):
        add(history, VICTIM, number, FIRST, time=time)

    assert stalls(history, (VICTIM,), (0.5, 3.0), 1.0) == [pytest.approx(0.5)]


def test_batches_are_lost_or_repeated_unless_they_were_under_way_at_the_end() -> None:
    complete = list(range(200))

    assert batches_lost(complete) == 0
    assert batches_lost([each for each in complete if each != 190]) == 0
    assert batches_lost([each for each in complete if each != 3]) == 1
    assert batches_lost([*complete, 3]) == 1


def test_a_half_of_a_pair_lasts_from_the_last_start_to_the_last_end() -> None:
    assert duration([(0.0, 3.0), (1.0, 2.5)]) == 2.0
