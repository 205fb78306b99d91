"""In which rounds the optimizer's state is averaged with the values."""

import pytest
from msgspec.structs import replace

from dssync.control import messages as m
from unit.control.job import JobOnPaper
from unit.control.test_adoption import ledger, taken_over, told, training
from unit.control.test_provisional import applied, assign, go_on

A, B, C, D = "0.0.a", "1.0.b", "2.0.c", "3.0.d"
PAIRS = m.SyncSettings("grid", 2, 1, "relaxed", 0)


def job_of(sync: m.SyncSettings, layouts: dict[str, str]) -> JobOnPaper:
    """A job of four whose members have told what they can average, round 0 frozen before."""
    job = JobOnPaper(desired=4, sync=sync)
    job.begin(A, B, C, D)
    for key, layout in layouts.items():
        job.says(key, m.Moments(layout))
    return job


@pytest.mark.parametrize(
    ("layouts", "averaged"),
    [
        (dict.fromkeys((A, B, C, D), "adam"), True),
        (dict.fromkeys((A, B, C), "adam"), False),
        ({**dict.fromkeys((A, B, C), "adam"), D: "momentum"}, False),
        ({**dict.fromkeys((A, B, C, D), "adam"), D: ""}, False),
    ],
)
def test_a_flush_averages_what_all_members_have(layouts: dict[str, str], averaged: bool) -> None:
    job = job_of(PAIRS, layouts)
    job.says(A, m.AskFlush())

    job.arrive(A)

    flush = [job.assignment(key, 1) for key in (A, B, C, D)]
    assert {each.kind for each in flush} == {"flush"}
    assert {each.moments for each in flush} == {"adam" if averaged else ""}


def test_training_rounds_leave_it_local_unless_the_job_asks_for_it() -> None:
    local = job_of(PAIRS, dict.fromkeys((A, B, C, D), "adam"))
    everywhere = job_of(
        replace(PAIRS, average_optimizer_state=True), {A: "adam", C: "adam", B: "adam", D: ""}
    )

    for job in (local, everywhere):
        job.arrive(A)

    assert {local.assignment(key, 1).moments for key in (A, B, C, D)} == {""}
    # Each group by itself: who has trained on nothing yet keeps nobody but its mates waiting.
    groups = {key: everywhere.mates(key, 1) for key in (A, B, C, D)}
    with_d = set(groups[D])
    assert {k: everywhere.assignment(k, 1).moments for k in groups} == {
        key: "" if key in with_d else "adam" for key in groups
    }


def test_a_retry_averages_what_the_first_attempt_was_to() -> None:
    job = job_of(replace(PAIRS, average_optimizer_state=True), dict.fromkeys((A, B, C, D), "adam"))
    job.arrive(A)
    mate = next(key for key in job.mates(A, 1) if key != A)

    job.hear(int(mate[0]), m.Exited(mate, -9, False))
    job.says(A, m.Abandoned(1, 0))

    assert job.assignment(A, 1).attempt == 1
    assert job.assignment(A, 1).moments == "adam"


def test_a_retry_leaves_it_out_if_a_member_has_another_layout_by_then() -> None:
    job = job_of(replace(PAIRS, average_optimizer_state=True), dict.fromkeys((A, B, C, D), "adam"))
    job.arrive(A)
    group = job.mates(A, 1)
    job.says(A, m.Moments("more"))

    job.says(A, m.Failed(1, 0, "the optimizer's state has another layout"))
    for key in group:
        job.says(key, m.Abandoned(1, 0))

    assert {job.assignment(key, 1).attempt for key in group} == {1}
    assert {job.assignment(key, 1).moments for key in group} == {""}
    assert {job.assignment(key, 1).moments for key in {A, B, C, D} - {*group}} == {"adam"}


def test_a_new_coordinator_knows_what_its_members_have() -> None:
    report = replace(training(), moments="adam", flush_asked=True)

    _, effects = taken_over({1: ledger()}, {B: report})

    (flush,) = told(effects, m.Assign).values()
    assert isinstance(flush, m.Assign)
    assert (flush.kind, flush.moments) == ("flush", "adam")


def test_provisional_rounds_average_what_the_repeated_round_did() -> None:
    rounds = [replace(assign(4), moments="adam"), assign(5), replace(assign(6), moments="adam")]
    state = applied(*rounds, replace(assign(7, kind="flush", strict=True), moments="adam"))
    known = [state.history.provisional.assignment(number) for number in (8, 9)]

    assert [(each.round, each.moments) for each in known if each is not None] == [
        (8, "adam"),
        (9, ""),
    ]
    assert go_on(state, 2)


def test_a_flush_in_many_stages_may_take_as_long_as_its_sums() -> None:
    """Rounds of one sum take four seconds each, so their limit is twelve."""
    keys = tuple(f"{slot}.0.{slot}" for slot in range(8))
    job = JobOnPaper(desired=8, sync=PAIRS)
    job.begin(*keys)
    for number in range(12):
        job.arrive(*keys, round=number)
        job.wait(4.0, *range(8))
        job.apply(*keys, round=number)
    job.says(keys[0], m.AskFlush())
    job.arrive(*keys, round=12)
    job.apply(*keys, round=12)
    flush = job.assignment(keys[0], 13)
    assert flush.kind == "flush"
    assert len(flush.stages) == 3

    job.arrive(*keys, round=13)
    job.wait(30.0, *range(8))
    in_time = job.assignment(keys[0], 13).attempt
    job.wait(10.0, *range(8))

    assert in_time == 0
    assert any(job.of(keys[0], m.Abandon))
