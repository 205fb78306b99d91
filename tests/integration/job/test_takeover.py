"""The coordinator's launcher is lost; another one takes over, and the members stay as they are."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from integration.job.harness import Job, Launcher, Line, matching, start_time

pytestmark = pytest.mark.timeout(400)
PODS = 4


def pods_of(job: Job, count: int = PODS, workers: int = 2, *flags: str) -> list[Launcher]:
    """Start pods of some workers each, and wait until they have trained for a while."""
    job.resize(desired=count)
    pods = [job.pod(slot, workers, *flags) for slot in range(count)]
    job.board.wait(lambda line: line["event"] == "round" and line["round"] == 12, count * workers)
    return pods


def workers_of(job: Job, slots: set[int]) -> dict[tuple[int, int], tuple[int, str]]:
    """Return process id and start time of the workers of some pods as they last reported."""
    lines = {(line["slot"], line["rank"]): line for line in job.board.rounds()}
    chosen = {where: line["pid"] for where, line in lines.items() if where[0] in slots}
    return {where: (pid, start_time(pid)) for where, pid in chosen.items()}


def committed(slot: int, round_above: int) -> object:
    """Return the test for a round that a pod has committed with mates, above a number."""
    return lambda line: (
        line["event"] == "round"
        and line["slot"] == slot
        and line["round"] > round_above
        and line["result"] == "committed"
    )


def latest_round(job: Job) -> int:
    return max(line["round"] for line in job.board.rounds())


def rounds_go_on(job: Job, slots: set[int], count: int = 10) -> None:
    """Wait until every pod has committed rounds together with others beyond what is known now."""
    since = latest_round(job)
    for slot in slots:
        job.board.wait(committed(slot, since), count)


def linked(job: Job, term: int, pods: list[Launcher]) -> list[Line]:
    """Wait until launchers are linked to the coordinator of a term."""
    return [job.board.wait(pod.says("linked", f"term={term}"))[0] for pod in pods]


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


def test_a_frozen_coordinator_is_replaced_and_follows_when_it_is_back(job: Job) -> None:
    pods = pods_of(job, 4, 1)
    first = job.coordinator()
    before = workers_of(job, set(range(4)))
    others = [pod for pod in pods if pod is not first]

    frozen_at = time.monotonic()
    first.signal(signal.SIGSTOP)
    lines = linked(job, 2, others)
    rounds_go_on(job, {pods.index(pod) for pod in others}, count=5)
    first.signal(signal.SIGCONT)
    job.board.wait(first.says("stepping_down"))
    linked(job, 2, [first])
    rounds_go_on(job, set(range(4)), count=5)

    assert max(line["seen"] for line in lines) - frozen_at < 2.0 + 2.0
    assert workers_of(job, set(range(4))) == before


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


def test_a_coordinator_that_dies_while_the_arbiter_is_away_costs_provisional_rounds(
    job: Job,
) -> None:
    pods = pods_of(job, PODS, 1, "--group-size", "2")
    first = job.coordinator()
    others = {slot: pod for slot, pod in enumerate(pods) if pod is not first}
    before = workers_of(job, set(others))

    with arbiter_away(job):
        first.signal(signal.SIGKILL)
        for slot, pod in others.items():
            job.board.wait(pod.says("leaderless"))
            job.board.wait(matching(event="round", slot=slot, cause="provisional"), 30)
        went_on = job.board.select(matching(event="round", cause="provisional"))
    linked(job, 2, list(others.values()))
    rounds_go_on(job, set(others), count=5)

    assert {line["result"] for line in went_on} == {"committed", "solo"}
    assert workers_of(job, set(others)) == before
    assert not job.board.select(lambda line: line["event"] == "load" and line["steps"] > 0)


@contextmanager
def arbiter_away(job: Job) -> Iterator[None]:
    """Put a folder where the arbiter's file is: it can be neither read nor written."""
    record, kept = job.folder / "arbiter.json", job.folder / "kept.json"
    record.rename(kept)
    record.mkdir()
    yield
    record.rmdir()
    kept.rename(record)
