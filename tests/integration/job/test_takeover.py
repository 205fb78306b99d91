"""The coordinator's launcher is lost; another one takes over, and the members stay as they are."""

import signal
import time
from collections import Counter

import pytest

from dssync import contract
from dssync.control.ballots import ElectionSettings
from dssync.control.quorum import READ_SECONDS
from integration.job.harness import Job, coordinates, matching
from integration.job.takeovers import (
    PODS,
    Place,
    after,
    arbiter_away,
    back_at,
    commits,
    committed,
    held_before_a_round,
    linked,
    longest_pause,
    pods_of,
    port_of,
    rounds_go_on,
    trains_on,
    whole_pairs,
    workers_of,
)
from integration.job.wires import cut

pytestmark = pytest.mark.timeout(400)
LEASE_SECONDS = 2.0
SAMPLES = 800


@pytest.mark.parametrize("commit", ["relaxed", "strict"])
def test_a_killed_coordinator_is_replaced_and_nobody_else_is_touched(job: Job, commit: str) -> None:
    pace = job.folder / "pace"
    pace.touch()
    spec = {"samples": SAMPLES, "pace_file": str(pace), "pace_seconds": 0.05}
    flags = ("--max-restarts", "3", "--group-size", "2", "--commit", commit)
    pods = pods_of(job, PODS, 2, *flags, **spec)
    first = job.coordinator()
    others = [pod for pod in pods if pod is not first]
    slots = set(range(PODS)) - {pods.index(first)}
    before = workers_of(job, slots)
    joiner = max(before)
    lost = {(pods.index(first), 0), (pods.index(first), 1), joiner}

    with held_before_a_round(job, 2 * PODS) as number:
        killed_at = time.monotonic()
        first.signal(signal.SIGKILL)
        job.kill(before.pop(joiner)[0])

    linked_at = [line["seen"] for line in linked(job, 2, others)]
    ready_at, counted_at = back_at(job, joiner)
    rounds_go_on(job, slots)
    paused = max(longest_pause(job, slot, killed_at) for slot in slots)
    now = workers_of(job, slots)
    pace.unlink()
    assert [pod.end() for pod in others] == [0] * len(others)
    assert max(linked_at) - killed_at < 2.0
    assert counted_at - max(killed_at, ready_at) < 2.0
    assert paused < 2.0
    assert {where: now[where] for where in before} == before
    assert not job.board.select(after(killed_at, event="load", life=0))
    assert_whole_pairs_go_on(job, number, lost, strict=commit == "strict")
    assert_no_commit_is_lost(job, slots)
    done = f"committed={SAMPLES} total={SAMPLES} repeated=0"
    assert any(done in pod.text for pod in others)


def assert_whole_pairs_go_on(job: Job, number: int, lost: set[Place], strict: bool) -> None:
    """Pairs without a loss end the round before which everybody was held, in the first attempt.

    They need nobody for it, or, strict, the decision, which the next coordinator makes up for.
    """
    taken_over = job.board.select(coordinates)[-1]["seen"]
    pairs = whole_pairs(job, number, lost)
    ends = [line for line in job.board.rounds(round=number) if line["own"] in pairs]
    assert pairs
    assert {line["own"]: line["members"] for line in ends} == pairs
    assert {(line["result"], line["attempts"]) for line in ends} == {("committed", 0)}
    assert strict or max(line["seen"] for line in ends) < taken_over


def assert_no_commit_is_lost(job: Job, slots: set[int]) -> None:
    """All data is committed, and nothing twice of what pods that are left had committed."""
    found = list(commits(job))
    kept = Counter(batch for line, each in found if line["slot"] in slots for batch in each)
    assert {batch for _, each in found for batch in each} == set(range(SAMPLES))
    assert kept.keys() == {batch for batch, count in kept.items() if count == 1}


@pytest.mark.parametrize(
    "order",
    [
        ("coordinator", "coordinator"),
        ("other", "other"),
        pytest.param(("coordinator", "other"), marks=pytest.mark.slow),
        pytest.param(("other", "coordinator"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_one_after_the_other_is_lost_and_the_last_one_trains_on(
    job: Job, order: tuple[str, ...]
) -> None:
    pods = dict(enumerate(pods_of(job, 3, 1)))
    before = workers_of(job, set(pods))

    term = 1
    for who in order:
        coordinator, hits_it = job.coordinator(), who == "coordinator"
        slot = next(slot for slot, pod in pods.items() if (pod is coordinator) == hits_it)
        pods.pop(slot).signal(signal.SIGKILL)
        term += hits_it
        linked(job, term, list(pods.values()))
        for left in pods:
            trains_on(job, left)
    (last,) = pods

    assert len(job.board.select(coordinates)) == term
    assert workers_of(job, {last}) == {(last, 0): before[last, 0]}


@pytest.mark.parametrize("last", ["the coordinator", "another one"])
def test_all_but_one_are_lost_at_once_and_the_last_one_trains_on(job: Job, last: str) -> None:
    pods = pods_of(job, PODS, 1)
    coordinator, is_it = job.coordinator(), last == "the coordinator"
    slot = next(slot for slot, pod in enumerate(pods) if (pod is coordinator) == is_it)
    before = workers_of(job, {slot})

    for pod in pods:
        if pod is not pods[slot]:
            pod.signal(signal.SIGKILL)
    term = 1 if is_it else 2
    linked(job, term, [pods[slot]])
    trains_on(job, slot)

    assert len(job.board.select(coordinates)) == term
    assert workers_of(job, {slot}) == before


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
    pods = pods_of(job, 8, 1, "--max-restarts", "3")
    first = job.coordinator()
    before = workers_of(job, set(range(8)))
    others = {slot: pod for slot, pod in enumerate(pods) if pod is not first}
    joiner = max(others), 0

    frozen_at = time.monotonic()
    first.signal(signal.SIGSTOP)
    job.kill(before.pop(joiner)[0])
    linked_at = [line["seen"] for line in linked(job, 2, list(others.values()))]
    ready_at, counted_at = back_at(job, joiner)
    rounds_go_on(job, set(others), count=5)
    first.signal(signal.SIGCONT)
    job.board.wait(first.says("stepping_down"))
    linked(job, 2, [first])
    rounds_go_on(job, set(range(8)), count=5)

    assert max(linked_at) - frozen_at < LEASE_SECONDS + 2.0
    assert counted_at - max(frozen_at, ready_at) < LEASE_SECONDS + 2.0
    now = workers_of(job, set(range(8)))
    assert {where: now[where] for where in before} == before


def test_the_other_of_two_takes_over_from_a_frozen_coordinator_that_answers_no_challenge(
    job: Job,
) -> None:
    pods = pods_of(job, 2, 1)
    first = job.coordinator()
    (slot,) = {0, 1} - {pods.index(first)}
    before = workers_of(job, {0, 1})

    frozen_at = time.monotonic()
    first.signal(signal.SIGSTOP)
    leads = job.board.wait(pods[slot].says("coordinating", "term=2"))[0]
    records = [path.read_text() for path in (job.folder / "arbiter").iterdir()]
    trains_on(job, slot)
    first.signal(signal.SIGCONT)
    job.board.wait(first.says("stepping_down"))
    linked(job, 2, [first])
    rounds_go_on(job, {0, 1}, count=5)

    least = LEASE_SECONDS + ElectionSettings().challenge_seconds
    assert leads["seen"] - frozen_at > least
    assert any(contract.RECORD_CHALLENGE in record for record in records)
    assert workers_of(job, {0, 1}) == before


@pytest.mark.parametrize("seconds", [READ_SECONDS + 1, pytest.param(60, marks=pytest.mark.slow)])
def test_training_goes_on_while_the_arbiter_is_out_of_reach(job: Job, seconds: float) -> None:
    pods_of(job, 2, 2, "--max-restarts", "1")
    coordinator = job.coordinator()
    since = time.monotonic()

    with arbiter_away(job):
        # The coordinator's last look is worth nothing any more.
        job.board.wait(after(since + seconds, event="round", slot=0))
        job.kill(job.board.rounds(slot=1, rank=1)[-1]["pid"])
        job.board.wait(coordinator.says("evict", "member=1.1.", "cause=exit"))
        job.board.wait(matching(event="round", slot=1, rank=1, life=1, result="committed"))
        rounds_go_on(job, {0, 1}, count=20)
    rounds_go_on(job, {0, 1}, count=20)

    assert max(longest_pause(job, slot, since) for slot in (0, 1)) < READ_SECONDS
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
