"""The coordinator's launcher is lost; another one takes over, and the members stay as they are."""

import signal
import time

import pytest

from integration.job.harness import Job, Test, coordinates, matching
from integration.job.takeovers import (
    PODS,
    arbiter_away,
    committed,
    latest_round,
    linked,
    pods_of,
    port_of,
    rounds_go_on,
    workers_of,
)
from integration.job.wires import cut

pytestmark = pytest.mark.timeout(400)


def test_a_killed_coordinator_is_replaced_and_nobody_else_is_touched(job: Job) -> None:
    pods = pods_of(job, PODS, 2, "--max-restarts", "3")
    first = job.coordinator()
    slot = pods.index(first)
    others = [pod for pod in pods if pod is not first]
    slots = set(range(PODS)) - {slot}
    before = workers_of(job, slots)
    joiner = max(before)

    killed_at = time.monotonic()
    first.signal(signal.SIGKILL)
    job.kill(before.pop(joiner)[0])

    lines = linked(job, 2, others)
    again = job.board.wait(
        matching(event="round", slot=joiner[0], rank=joiner[1], life=1, result="committed")
    )[0]
    rounds_go_on(job, slots)
    ready = job.board.wait(matching(event="ready", slot=joiner[0], rank=joiner[1], life=1))[0]
    assert max(line["seen"] for line in lines) - killed_at < 2.0
    assert again["seen"] - max(killed_at, ready["seen"]) < 2.0
    after = workers_of(job, slots)
    assert {where: after[where] for where in before} == before
    assert not [
        line
        for line in job.board.select(matching(event="load"))
        if line["life"] == 0 and line["seen"] > killed_at
    ]


def test_one_after_the_other_is_lost_and_the_last_one_trains_on(job: Job) -> None:
    pods = dict(enumerate(pods_of(job, 3, 1)))
    last = workers_of(job, set(pods))

    for term in (2, 3):
        gone = pods.pop(next(s for s, pod in pods.items() if pod is job.coordinator()))
        gone.signal(signal.SIGKILL)
        linked(job, term, list(pods.values()))
    (slot,) = pods
    since = latest_round(job)
    job.board.wait(
        lambda line: line["event"] == "round" and line["slot"] == slot and line["round"] > since, 5
    )

    assert workers_of(job, {slot}) == {(slot, 0): last[slot, 0]}


def test_all_but_one_are_lost_at_once_and_the_last_one_trains_on(job: Job) -> None:
    pods = pods_of(job, PODS, 1)
    coordinator = job.coordinator()
    last = next(slot for slot, pod in enumerate(pods) if pod is not coordinator)
    before = workers_of(job, {last})

    for slot, pod in enumerate(pods):
        if slot != last:
            pod.signal(signal.SIGKILL)
    linked(job, 2, [pods[last]])
    since = latest_round(job)
    job.board.wait(
        lambda line: line["event"] == "round" and line["slot"] == last and line["round"] > since, 5
    )

    assert workers_of(job, {last}) == before


def test_a_coordinator_whose_link_flaps_for_a_second_stays(job: Job) -> None:
    pods = pods_of(job, 3, 1)
    coordinator = job.coordinator()
    before = workers_of(job, {0, 1, 2})
    port = port_of(job)

    give_up, ended = time.monotonic() + 1.0, 0
    while time.monotonic() < give_up:
        ended += sum(cut(pod.pid, port) for pod in pods if pod is not coordinator)
        time.sleep(0.02)
    rounds_go_on(job, {0, 1, 2})

    assert ended > 2 * len(pods)
    assert len(job.board.select(coordinates)) == 1
    assert not job.board.select(coordinator.says("evict"))
    assert workers_of(job, {0, 1, 2}) == before


def test_a_coordinator_that_drains_hands_over_and_costs_nobody_a_retry(job: Job) -> None:
    pods = pods_of(job, 3, 1)
    first = job.coordinator()
    since = time.monotonic()

    first.signal(signal.SIGTERM)

    assert first.end() == 0
    assert "verdict=Drained" in first.text
    others = [pod for pod in pods if pod is not first]
    linked(job, 2, others)
    rounds_go_on(job, {pods.index(pod) for pod in others}, count=5)
    assert not [x for x in job.board.rounds() if x["seen"] > since and x["attempts"]]


def test_a_coordinator_whose_workers_have_not_run_yet_hands_over_when_it_drains(job: Job) -> None:
    job.resize(desired=2)
    pods = {slot: job.pod(slot, 1) for slot in (1, 2)}
    for slot in pods:
        job.board.wait(committed(slot, 0))
    first = job.coordinator()
    (other,) = [pod for pod in pods.values() if pod is not first]
    # Its fork-server takes seconds to import torch.
    fresh = job.pod(0, 1)
    job.board.wait(fresh.says("linked"))
    first.signal(signal.SIGTERM)  # It hands over to the lowest slot.
    job.board.wait(fresh.says("coordinating"))
    linked(job, 2, [other])
    job.board.wait(fresh.says("adopted"))

    fresh.signal(signal.SIGTERM)

    assert fresh.end() == 0
    assert job.board.select(fresh.says("stepping_down"))
    assert not job.board.select(fresh.says("started"))
    linked(job, 3, [other])


def test_a_frozen_coordinator_is_replaced_and_follows_when_it_is_back(job: Job) -> None:
    pods = pods_of(job, 8, 1)
    first = job.coordinator()
    before = workers_of(job, set(range(8)))
    others = [pod for pod in pods if pod is not first]

    frozen_at = time.monotonic()
    first.signal(signal.SIGSTOP)
    lines = linked(job, 2, others)
    rounds_go_on(job, {pods.index(pod) for pod in others}, count=5)
    first.signal(signal.SIGCONT)
    job.board.wait(first.says("stepping_down"))
    linked(job, 2, [first])
    rounds_go_on(job, set(range(8)), count=5)

    assert max(line["seen"] for line in lines) - frozen_at < 2.0 + 2.0
    assert workers_of(job, set(range(8))) == before


def test_training_goes_on_while_the_arbiter_is_out_of_reach(job: Job) -> None:
    pods_of(job, 2, 2, "--max-restarts", "1")
    coordinator = job.coordinator()

    with arbiter_away(job):
        rounds_go_on(job, {0, 1}, count=20)
        victim = job.board.rounds(slot=1, rank=1)[-1]["pid"]
        job.kill(victim)
        job.board.wait(coordinator.says("evict", "member=1.1.", "cause=exit"))
        job.board.wait(matching(event="round", slot=1, rank=1, life=1, result="committed"))
    rounds_go_on(job, {0, 1}, count=20)

    assert "stepping_down" not in coordinator.text


@pytest.mark.parametrize("seconds", [0, pytest.param(60, marks=pytest.mark.slow)])
def test_a_coordinator_that_dies_while_the_arbiter_is_away_costs_provisional_rounds(
    job: Job, seconds: float
) -> None:
    pods = pods_of(job, PODS, 1, "--group-size", "2")
    first = job.coordinator()
    others = {slot: pod for slot, pod in enumerate(pods) if pod is not first}
    before = workers_of(job, set(others))

    with arbiter_away(job):
        first.signal(signal.SIGKILL)
        until = time.monotonic() + seconds
        for slot, pod in others.items():
            provisional = matching(event="round", slot=slot, cause="provisional")
            job.board.wait(pod.says("leaderless"))
            job.board.wait(provisional, 30)
            job.board.wait(after(until, event="round", slot=slot, cause="provisional"))
        went_on = job.board.select(matching(event="round", cause="provisional"))
    linked(job, 2, list(others.values()))
    rounds_go_on(job, set(others), count=5)

    assert {line["result"] for line in went_on} == {"committed", "solo"}
    assert workers_of(job, set(others)) == before
    assert not job.board.select(lambda line: line["event"] == "load" and line["steps"] > 0)


def test_a_coordinator_that_was_only_out_of_reach_has_members_enter_again(job: Job) -> None:
    pods = pods_of(job, 3, 1, "--group-size", "2")
    first = job.coordinator()
    others = {slot: pod for slot, pod in enumerate(pods) if pod is not first}
    before = workers_of(job, {0, 1, 2})

    with arbiter_away(job):
        first.signal(signal.SIGSTOP)
        for pod in others.values():
            job.board.wait(pod.says("leaderless"))
        job.board.wait(matching(event="round", cause="provisional"), 5)
        thawed_at = time.monotonic()
        first.signal(signal.SIGCONT)
        for slot in others:
            job.board.wait(after(thawed_at, event="load", slot=slot))
    # Provisional rounds went far beyond those of the coordinator.
    for slot in range(3):
        job.board.wait(after(thawed_at, event="round", slot=slot, result="committed", cause=""), 5)

    assert len(job.board.select(coordinates)) == 1
    assert workers_of(job, {0, 1, 2}) == before


def test_a_coordinator_that_dies_before_its_end_is_recorded_leaves_one_end(job: Job) -> None:
    job.resize(desired=3)
    pods = [job.pod(slot, 1, samples=900) for slot in range(3)]
    first = job.coordinator()
    others = {slot: pod for slot, pod in enumerate(pods) if pod is not first}
    job.board.wait(lambda line: line["event"] == "round" and line["round"] == 12, 3)

    with arbiter_away(job):
        job.board.wait(first.says("completed", "committed=900 total=900"))
        first.signal(signal.SIGKILL)
        for pod in others.values():
            job.board.wait(pod.says("leaderless"))
        assert not job.board.select(matching(event="over"))
    assert [pod.end() for pod in others.values()] == [0, 0]

    ends = job.board.select(matching(event="over"))
    assert {line["slot"] for line in ends} == set(others)
    assert len({str(line["bits"]) for line in ends}) == 1
    (final,) = {line["round"] for line in job.board.rounds() if line["kind"] == "final"}
    assert job.board.select(first.says("completed", f"round={final} "))


def test_a_latecomer_whose_coordinator_is_lost_after_the_end_hears_of_the_end(job: Job) -> None:
    job.resize(desired=3)
    pods = [job.pod(slot, 1, samples=900) for slot in range(3)]
    first = job.coordinator()
    others = [pod for pod in pods if pod is not first]
    with job.board.hold(matching(event="late")):
        with job.board.hold(matching(event="step", step=5)) as held:
            held()
            late = job.pod(3, 1, samples=900, comes_late=True)
            job.board.wait(late.says("linked"))
        assert [pod.end() for pod in others] == [0, 0]
        # It stays for the latecomer, whose launcher has heard of the end.
        first.signal(signal.SIGKILL)
        first.end()
        job.board.wait(matching(event="late"))

    assert late.end() == 0
    assert "verdict=Done" in late.text
    assert job.board.select(matching(event="over", slot=3, steps=0))


def after(seconds: float, **fields: object) -> Test:
    """Return the test for a line with these values that came after a moment."""
    matches = matching(**fields)
    return lambda line: matches(line) and line["seen"] > seconds
