"""What tests of lost coordinators have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from dssync.agent.arbiters import FileArbiter
from dssync.errors import ArbiterError
from integration.job.harness import (
    Job,
    Launcher,
    Line,
    Test,
    coordinates,
    matching,
)
from integration.job.processes import start_time

Place = tuple[int, int]
"""Slot and local rank."""
PODS = 4
PAIRS_REPEAT = 3
"""Rounds after which eight members that average in pairs meet again."""


def pods_of(
    job: Job, count: int = PODS, workers: int = 2, *flags: str, **spec: object
) -> list[Launcher]:
    """Start pods of some workers each, and wait until they have trained for a while."""
    job.resize(desired=count)
    most = f"1:{max(count, PODS)}"
    pods = [job.pod(slot, workers, *flags, pods=most, **spec) for slot in range(count)]
    job.board.wait(lambda line: line["event"] == "round" and line["round"] == 12, count * workers)
    return pods


def workers_of(job: Job, slots: set[int]) -> dict[Place, tuple[int, str]]:
    """Return process id and start time of the workers of some pods as they last reported."""
    lines = {(line["slot"], line["rank"]): line for line in job.board.rounds()}
    chosen = {where: line["pid"] for where, line in lines.items() if where[0] in slots}
    return {where: (pid, start_time(pid)) for where, pid in chosen.items()}


def committed(slot: int, round_above: int) -> Test:
    """Return the test for a round that a pod has committed with mates, above a number."""
    return lambda line: (
        line["event"] == "round"
        and line["slot"] == slot
        and line["round"] > round_above
        and line["result"] == "committed"
    )


def latest_round(job: Job) -> int:
    return max(line["round"] for line in job.board.rounds())


def after(seconds: float, **fields: object) -> Test:
    """Return the test for a line with these values that came after a moment."""
    matches = matching(**fields)
    return lambda line: matches(line) and line["seen"] > seconds


def trains_on(job: Job, slot: int) -> None:
    """Wait until a pod has ended rounds, with others or alone, beyond what is known now."""
    since = latest_round(job)
    job.board.wait(
        lambda line: line["event"] == "round" and line["slot"] == slot and line["round"] > since, 5
    )


def rounds_go_on(job: Job, slots: set[int], count: int = 10) -> None:
    """Wait until every pod has committed rounds together with others beyond what is known now."""
    since = latest_round(job)
    for slot in slots:
        job.board.wait(committed(slot, since), count)


def port_of(job: Job) -> int:
    """Return the port at which the coordinator listens."""
    said = job.board.select(coordinates)[-1]["text"].partition(" address=")[2]
    return int(said.partition(" ")[0].rpartition(":")[2])


def linked(job: Job, term: int, pods: list[Launcher]) -> list[Line]:
    """Wait until launchers are linked to the coordinator of a term."""
    return [job.board.wait(pod.says("linked", f"term={term}"))[0] for pod in pods]


@contextmanager
def held_before_a_round(job: Job, workers: int) -> Iterator[int]:
    """Hold all workers of a paced job just before a round, which is frozen; give its number.

    The pace gives them the time to hear of it. What they have committed lately, no copy of the
    ledger tells yet.
    """
    held = matching(event="step", step=latest_round(job) + 10)
    with job.board.hold(held):
        job.board.wait(held, workers)
        yield latest_round(job) + 1


def whole_pairs(job: Job, number: int, lost: set[Place]) -> dict[str, list[str]]:
    """Return the pairs of a round in which nobody sits in one of some places, by member."""
    pairs = {line["own"]: line["members"] for line in job.board.rounds(round=number - PAIRS_REPEAT)}
    places = {own: tuple(map(int, own.split(".")[:2])) for own in pairs}
    hit = {own for own, pair in pairs.items() if lost & {places[mate] for mate in pair}}
    return {own: pair for own, pair in pairs.items() if own not in hit}


def commits(job: Job) -> Iterator[tuple[Line, list[int]]]:
    """Return the reports of committed rounds, each with the batches that its member had taken."""
    taken: dict[int, list[int]] = {}
    for line in job.board.select(lambda line: "pid" in line):
        batches = taken.setdefault(line["pid"], [])
        if line["event"] == "step":
            batches.append(line["batch"])
        elif line["event"] == "load":
            batches.clear()
        elif line["event"] == "round" and line["result"] != "skipped":
            yield line, taken.pop(line["pid"])


def longest_pause(job: Job, slot: int, since: float) -> float:
    """Return the longest time without a committed round in a pod, from a moment on."""
    rounds = job.board.rounds(slot=slot, result="committed")
    ends = [since, *(line["seen"] for line in rounds if line["seen"] > since)]
    return max(later - earlier for earlier, later in pairwise(ends))


def back_at(job: Job, where: Place) -> tuple[float, float]:
    """Return when a worker's second life was ready to enter, and when its first round counted."""
    life = {"slot": where[0], "rank": where[1], "life": 1}
    counted = job.board.wait(matching(event="round", result="committed", **life))[0]
    ready = job.board.wait(matching(event="ready", **life))[0]
    return ready["seen"], counted["seen"]


@contextmanager
def arbiter_away(job: Job) -> Iterator[None]:
    """Put a file where the arbiter's folder is: it can be neither read nor written."""
    record, kept = job.folder / "arbiter", job.folder / "kept"
    record.rename(kept)
    record.touch()
    with pytest.raises(ArbiterError):
        FileArbiter(record).read_now()
    yield
    record.unlink()
    kept.rename(record)
