"""The network between launchers is cut: who goes on, who waits, and how it heals by itself.

All pods save to one folder every few rounds, as on a shared file system.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from dssync import contract
from dssync.agent.arbiters import FileArbiter
from dssync.worker import checkpoint
from ground.rights import needs
from integration.job.harness import Job, Launcher, Test, coordinates
from integration.job.net import Network, can_make_namespaces
from integration.job.takeovers import (
    arbiter_away,
    linked,
    rounds_go_on,
    workers_of,
)

pytestmark = [
    pytest.mark.timeout(400),
    needs(can_make_namespaces(), "make namespaces"),
]
PODS = 4
ALL = set(range(PODS))
FROZEN_AHEAD = 4
"""A member goes on so many rounds by itself: a period of the schedule, and two."""


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network(PODS)
    yield made
    made.close()


@pytest.fixture
def pods(job: Job, network: Network) -> list[Launcher]:
    """Launchers of one worker each, every one in a namespace of its own, that train."""
    job.resize(desired=PODS)
    saves = {
        "DSSYNC_CHECKPOINT_PATH": str(job.folder / "saved"),
        "DSSYNC_CHECKPOINT_INTERVAL_STEPS": "5",
        "DSSYNC_CHECKPOINT_KEEP": "1000",
    }
    started = [
        job.pod(
            slot, 1, "--group-size", "2", "--local-addr", network.addresses[slot],
            prefix=network.prefix(slot), environment=saves,
        )
        for slot in range(PODS)
    ]  # fmt: skip
    job.board.wait(lambda line: line["event"] == "round" and line["round"] == 12, PODS)
    return started


def saves(pods: list[Launcher], since: float) -> Test:
    """Return the test for the word of pods that they published a checkpoint after a moment."""
    tests = [pod.says("checkpoint", "holds round") for pod in pods]
    return lambda line: line["seen"] > since and any(test(line) for test in tests)


def terms_saved(job: Job) -> list[int]:
    """Return the terms of whose ledgers the checkpoints are, in the order of publication."""
    manifests = [each / "manifest.json" for each in checkpoint.published(job.folder / "saved")]
    return [json.loads(each.read_text())["facts"]["term"] for each in manifests]


def term_of(job: Job) -> int:
    """Return the term that the record tells of."""
    return FileArbiter(job.folder / "arbiter").read_now().term


def challenges_answered(job: Job) -> list[str]:
    """Return who challenged the coordinator and was answered, as far as old records still tell."""
    files = {int(path.name): path for path in (job.folder / "arbiter").glob("[0-9]*")}
    records = [json.loads(files[number].read_text()) for number in sorted(files)]
    names = [record["values"].get(contract.RECORD_CHALLENGE, "") for record in records]
    return [name for name, later in pairwise(names) if name and not later]


def is_challenged_again(job: Job) -> bool:
    """Tell whether a launcher was answered, and again: ten seconds are between its challenges."""
    return max(Counter(challenges_answered(job)).values(), default=0) > 1


def test_a_coordinator_whose_link_is_cut_for_a_second_stays(
    job: Job, network: Network, pods: list[Launcher]
) -> None:
    coordinator = job.coordinator()
    slot = pods.index(coordinator)
    before = workers_of(job, ALL)

    with network.cut({slot}, ALL - {slot}):
        since = time.monotonic()
        time.sleep(1.0)  # Nothing is waited for: this is how long it lasts.
        until = time.monotonic()
    rounds_go_on(job, ALL)

    assert len(job.board.select(coordinates)) == 1
    assert term_of(job) == 1
    assert not job.board.select(coordinator.says("evict"))
    assert workers_of(job, ALL) == before
    meanwhile = Counter(line["slot"] for line in job.board.rounds() if since < line["at"] < until)
    assert max(meanwhile.values(), default=0) <= FROZEN_AHEAD


def test_a_coordinator_that_is_cut_off_is_replaced_and_follows_when_it_is_back(
    job: Job, network: Network, pods: list[Launcher]
) -> None:
    first = job.coordinator()
    slot = pods.index(first)
    others = [pod for pod in pods if pod is not first]
    before = workers_of(job, ALL)
    job.board.wait(saves(pods, 0.0))

    with network.cut({slot}, ALL - {slot}):
        since = time.monotonic()
        linked(job, 2, others)
        job.board.wait(first.says("stepping_down"))
        rounds_go_on(job, ALL - {slot}, count=5)
        job.board.wait(saves(others, since))
        # Until the others have taken over, the one that is cut off leads, and may save.
        assert (terms := terms_saved(job)) == sorted(terms)
        assert set(terms) == {1, 2}
    linked(job, 2, [first])
    rounds_go_on(job, ALL, count=5)

    assert workers_of(job, ALL) == before


def test_the_half_with_the_coordinator_goes_on_and_the_other_one_waits(
    job: Job, network: Network, pods: list[Launcher]
) -> None:
    slot = pods.index(job.coordinator())
    here = {slot, slot ^ 1}
    before = workers_of(job, ALL)

    with network.cut(here, ALL - here):
        for gone in ALL - here:
            job.board.wait(pods[slot].says("evict", f"member={gone}.0."))
        since = time.monotonic()
        rounds_go_on(job, here, count=20)
        saved = saves([pods[slot] for slot in here], since)
        job.board.next(lambda line: saved(line) and is_challenged_again(job))
        assert not job.board.select(saves([pods[slot] for slot in ALL - here], since))
    rounds_go_on(job, ALL, count=5)

    assert len(job.board.select(coordinates)) == 1
    assert term_of(job) == 1
    assert workers_of(job, ALL) == before


def test_without_the_arbiter_a_coordinator_that_misses_launchers_holds(
    job: Job, network: Network, pods: list[Launcher]
) -> None:
    slot = pods.index(job.coordinator())
    here = {slot, slot ^ 1}
    before = workers_of(job, ALL)

    with arbiter_away(job), network.cut(here, ALL - here):
        held = job.board.wait(pods[slot].says("holding"))[0]
        for where, (pid, _) in before.items():
            if where[0] in here:
                job.settle(pid)
        for gone in ALL - here:
            job.board.wait(pods[gone].says("leaderless"))
        assert not job.board.select(saves(pods, held["seen"]))
    rounds_go_on(job, ALL, count=5)

    assert len(job.board.select(coordinates)) == 1
    assert workers_of(job, ALL) == before
