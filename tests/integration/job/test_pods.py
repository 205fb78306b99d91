"""Pods are frozen, lost, replaced and drained; the coordinator's pod is spared."""

import signal
import time

import pytest

from integration.job.harness import Job, Launcher, Line, matching
from integration.job.processes import start_time, wait_gone

pytestmark = pytest.mark.timeout(400)


def three_pods(job: Job, *flags: str, **spec: object) -> list[Launcher]:
    """Start three pods with two workers each, of which the first one coordinates."""
    job.resize(desired=3)
    first = job.pod(0, 2, *flags, **spec)
    assert job.coordinator() is first
    pods = [first, *(job.pod(slot, 2, *flags, **spec) for slot in (1, 2))]
    job.board.wait(lambda line: line["event"] == "round" and line["round"] == 12, 6)
    return pods


def workers_of(job: Job, slot: int) -> dict[int, tuple[int, str]]:
    """Return process id and start time of a pod's workers as they last reported."""
    lines = {line["rank"]: line for line in job.board.rounds(slot=slot)}
    return {rank: (line["pid"], start_time(line["pid"])) for rank, line in lines.items()}


def rounds_go_on(job: Job, slot: int, count: int = 3) -> None:
    """Wait for some more rounds of a pod's first worker."""
    for _ in range(count):
        job.board.next(matching(event="round", slot=slot, rank=0, result="committed"))


def retries(job: Job, since: float) -> list[Line]:
    return [line for line in job.board.rounds() if line["seen"] > since and line["attempts"]]


def test_pods_freeze_thaw_die_and_drain(job: Job) -> None:
    pods = three_pods(job)
    before = [workers_of(job, slot) for slot in range(3)]

    # Frozen for longer than its lease: out of the view, then back in place with a donor's state.
    pods[1].signal(signal.SIGSTOP)
    job.board.wait(pods[0].says("evict", "member=1.0.", "cause=lease"))
    rounds_go_on(job, slot=0)
    pods[1].signal(signal.SIGCONT)
    job.board.wait(matching(event="load", slot=1), 2)
    rounds_go_on(job, slot=1)
    assert [workers_of(job, slot) for slot in range(3)] == before

    # Lost: its workers die with it, and a new launcher takes its slot.
    pods[2].signal(signal.SIGKILL)
    assert not wait_gone({pid for pid, _ in before[2].values()}, within_seconds=1.0)
    job.board.wait(pods[0].says("evict", "member=2.0.", "cause="))
    rounds_go_on(job, slot=0)
    job.pod(2, 2)
    rounds_go_on(job, slot=2)
    assert [workers_of(job, slot) for slot in range(2)] == before[:2]

    # Drained: it ends by itself and costs nobody a retry.
    since = time.monotonic()
    pods[1].signal(signal.SIGTERM)
    assert pods[1].end() == 0
    assert "verdict=Drained" in pods[1].text
    rounds_go_on(job, slot=0)
    assert retries(job, since) == []
    assert workers_of(job, 0) == before[0]


def test_a_drain_loses_no_batch(job: Job) -> None:
    job.resize(desired=2)
    pods = [job.pod(slot, 2, samples=1800, sync={"every": 2}) for slot in range(2)]
    leaving = next(each for each in pods if each is not job.coordinator())
    job.board.wait(lambda line: line["event"] == "round" and line["round"] == 10, 4)

    leaving.signal(signal.SIGTERM)

    assert [each.end() for each in pods] == [0, 0]
    assert "verdict=Drained" in leaving.text
    assert "committed=1800 total=1800 repeated=0" in job.coordinator().text
    assert {line["attempts"] for line in job.board.rounds()} == {0}


def test_a_frozen_worker_is_skipped_and_comes_back_then_hangs_and_is_restarted(job: Job) -> None:
    pod = job.standalone(4, "--hang-timeout", "4", "--max-restarts", "1", sync={"group_size": 2})
    job.board.wait(lambda line: line["event"] == "round" and line["round"] == 12, 4)
    frozen = job.board.rounds(rank=2)[-1]["pid"]

    # Shorter than a deadline: everybody waits for it.
    since = time.monotonic()
    job.freeze(frozen)
    time.sleep(0.3)
    job.thaw(frozen)
    rounds = job.board.next(matching(event="round", rank=2))
    assert rounds["pid"] == frozen
    assert retries(job, since) == []

    # Longer: skipped, then benched; the others go on; back in place with a donor's state.
    job.freeze(frozen)
    job.board.wait(pod.says("evict", "member=0.2.", "cause=deadline"))
    rounds_go_on(job, slot=0)
    job.thaw(frozen)
    assert job.board.next(matching(event="load", rank=2))["pid"] == frozen
    job.board.next(matching(event="round", rank=2, result="committed"))

    # For good: its launcher ends it and starts another.
    job.freeze(frozen)
    job.board.wait(pod.says("evicted", "member=0.2.", "reason=hang"))
    back = job.board.next(matching(event="round", rank=2, life=1))
    assert back["pid"] != frozen
    assert {line["life"] for line in job.board.rounds() if line["rank"] != 2} == {0}


def test_a_standalone_pod_that_was_stopped_goes_on(job: Job) -> None:
    pod = job.standalone(2)
    job.board.wait(lambda line: line["event"] == "round" and line["round"] == 12, 2)
    pids = job.pids()

    for pid in (pod.pid, *pids):
        job.freeze(pid)
    time.sleep(3.0)
    for pid in (pod.pid, *pids):
        job.thaw(pid)
    rounds_go_on(job, slot=0, count=20)

    assert "evict" not in pod.text
    assert job.pids() == pids
    assert {line["result"] for line in job.board.rounds()} == {"committed"}


def test_a_second_signal_ends_a_drain(job: Job) -> None:
    pod = job.standalone(2)
    with job.board.hold(matching(event="step", rank=1)) as held:
        held()
        pod.signal(signal.SIGTERM)
        job.board.wait(pod.says("drain", "signal=SIGTERM"))
        pod.signal(signal.SIGTERM)
        assert pod.end() == 0
    assert "verdict=Drained" in pod.text


def test_a_pod_that_has_no_time_to_drain_goes_at_once(job: Job) -> None:
    pod = job.standalone(2, "--join-window", "0", "--drain-timeout", "0")
    with job.board.hold(matching(event="step", rank=1)) as held:
        held()
        pod.signal(signal.SIGTERM)
        assert pod.end() == 0
    assert "verdict=Drained" in pod.text


def pod_with(job: Job, slot: int, uid: str) -> Launcher:
    """Start a pod of one worker under a uid."""
    return job.pod(slot, 1, environment={"DSSYNC_POD_UID": uid})


def replaced(job: Job, before: Line) -> Line:
    """Replace a pod that has the uid ``old``; return the first round of its successor."""
    job.note("gone", '["old"]')
    pod_with(job, before["slot"], "new")
    ended = matching(event="round", slot=before["slot"])
    (after,) = job.board.wait(lambda line: ended(line) and line["own"] != before["own"])
    return after


def test_a_pod_that_was_replaced_while_it_was_frozen_is_turned_away_for_good(job: Job) -> None:
    job.resize(desired=2)
    first = pod_with(job, 0, "first")
    assert job.coordinator() is first
    frozen = pod_with(job, 1, "old")
    (before,) = job.board.wait(matching(event="round", slot=1))
    frozen.signal(signal.SIGSTOP)
    job.freeze(before["pid"])
    job.board.wait(first.says("evict", "member=1.0.", "cause=lease"))
    after = replaced(job, before)

    frozen.signal(signal.SIGCONT)
    job.thaw(before["pid"])

    assert frozen.end() == 94
    assert "verdict=Fenced" in frozen.text
    rounds_go_on(job, slot=1)
    rounds = job.board.rounds(slot=1)
    assert rounds[-1]["own"] == after["own"]
    assert not job.board.select(first.says("evict", f"member={after['own']}"))


def test_a_coordinator_that_was_replaced_while_it_was_frozen_gives_way_for_good(job: Job) -> None:
    job.resize(desired=3)
    frozen = pod_with(job, 0, "old")
    assert job.coordinator() is frozen
    others = [pod_with(job, 1, "first"), pod_with(job, 2, "second")]
    (before,) = job.board.wait(matching(event="round", slot=0))
    frozen.signal(signal.SIGSTOP)
    job.freeze(before["pid"])
    job.board.wait(lambda line: any(each.says("coordinating")(line) for each in others))
    after = replaced(job, before)

    frozen.signal(signal.SIGCONT)
    job.thaw(before["pid"])

    assert frozen.end() == 94
    assert "verdict=Fenced" in frozen.text
    rounds_go_on(job, slot=0)
    assert job.board.rounds(slot=0)[-1]["own"] == after["own"]
