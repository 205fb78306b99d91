"""Workers die at known and at random moments; the others train on in place."""

import random
import signal
import time
from pathlib import Path

import pytest

from integration.job.harness import Job, Line, Test, matching
from integration.job.predict import assert_follows_oracle
from integration.job.processes import start_time

pytestmark = pytest.mark.timeout(400)

WORKERS = 8
BIG = 1 << 20
"""Elements: large enough that staging and summing take milliseconds."""


def start(job: Job, **spec: object) -> None:
    job.standalone(WORKERS, "--max-restarts", "100", elements=BIG, sync={"group_size": 4}, **spec)
    job.board.wait(lambda line: line["event"] == "round" and line["round"] == 12, WORKERS)


def latest(job: Job, rank: int) -> Line:
    """Return the latest report of a worker."""
    return job.board.rounds(rank=rank)[-1]


def kill(job: Job, *ranks: int) -> list[Test]:
    """Kill workers at once; return what tells that each has come back."""
    lines = [latest(job, rank) for rank in ranks]
    for line in lines:
        job.kill(line["pid"])
    return [matching(event="round", rank=line["rank"], life=line["life"] + 1) for line in lines]


def wait_back(job: Job, returns: list[Test], rounds: int = 5) -> None:
    """Wait until every killed worker has taken part in some rounds."""
    for back in returns:
        job.board.wait(back, rounds)


def survivors(job: Job, victims: set[int]) -> dict[int, tuple[int, str]]:
    """Return process id and start time of every worker that is not a victim."""
    lines = [latest(job, rank) for rank in range(WORKERS) if rank not in victims]
    return {line["rank"]: (line["pid"], start_time(line["pid"])) for line in lines}


def assert_only_hit_groups_retried(job: Job, since: float, victims: int) -> None:
    """In each round at most one group for each victim has tried again because of its exit."""
    retried: dict[int, set[str]] = {}
    for line in job.board.rounds(cause="exit"):
        if line["seen"] > since:
            retried.setdefault(line["round"], set()).update(line["members"])
    assert retried
    assert max(map(len, retried.values())) <= victims * 3


def assert_groups_agree(job: Job) -> None:
    """Who averaged with each other holds the same values."""
    found: dict[tuple[object, ...], list[Line]] = {}
    for line in job.board.rounds(result="committed", kind="train"):
        found.setdefault((line["round"], line["attempts"], *line["members"]), []).append(line)
    for lines in found.values():
        assert len({str(line["values"]) for line in lines}) == 1


def end(job: Job) -> None:
    """Drain the pod: its verdict must be free of complaints."""
    launcher = job.launchers[0]
    launcher.signal(signal.SIGTERM)
    assert launcher.end() == 0
    assert "verdict=Drained" in launcher.text


def test_workers_die_at_every_moment_of_a_round(job: Job) -> None:
    start(job)
    dice = random.Random(11)
    for moment in ("between rounds", "in all-reduce", "staging", "staging", "two at once"):
        victims = dice.sample(range(WORKERS), 2 if moment == "two at once" else 1)
        before, since = survivors(job, set(victims)), time.monotonic()
        if moment == "between rounds":
            with job.board.hold(matching(event="step", rank=victims[0])) as held:
                held()
                returns = kill(job, *victims)
        elif moment == "in all-reduce":
            returns = kill_in_allreduce(job, victims[0])
        else:
            job.board.next(matching(event="step", rank=victims[0]))
            time.sleep(dice.uniform(0, 0.01))
            returns = kill(job, *victims)
        wait_back(job, returns)

        assert survivors(job, set(victims)) == before, moment
        assert_only_hit_groups_retried(job, since, len(victims))
    assert_groups_agree(job)
    end(job)


def kill_in_allreduce(job: Job, victim: int) -> list[Test]:
    """Kill a worker that waits for a mate's part, which the mate holds back meanwhile."""
    mate = next(
        int(key.split(".")[1])
        for key in latest(job, victim)["members"]
        if int(key.split(".")[1]) != victim
    )
    with job.board.hold(matching(event="step", rank=mate)) as held:
        step = held()["step"]
        job.board.wait(lambda line: line.get("rank") == victim and line.get("step", 0) >= step)
        job.settle(latest(job, victim)["pid"])
        return kill(job, victim)


@pytest.mark.parametrize("stage", [0, 1])
def test_a_flush_begins_again_without_a_member_that_dies_in_it(job: Job, stage: int) -> None:
    """A mate that is held keeps the dying member's sum from its end; other groups end theirs."""
    sync = {"mode": "grid", "group_size": 3}
    spec = {"script": "flushing.py", "samples": 7 * 20, "flush_at": 3, "sync": sync}
    launcher = job.standalone(7, **spec)
    with job.board.hold(matching(event="sum", rank=4, stage=stage)) as held:
        mate = held()
        same = matching(event="sum", round=mate["round"], group=mate["group"])
        victim = job.board.wait(lambda line: same(line) and line["rank"] != 4)[0]
        job.kill(victim["pid"])

    assert launcher.end() == 0

    lines = job.board.rounds()
    flush = [line for line in lines if line["round"] == mate["round"]]
    assert {line["rank"] for line in flush} == set(range(7)) - {victim["rank"]}
    assert {line["kind"] for line in flush} == {"flush"}
    assert min(line["attempts"] for line in flush) > 0
    assert len({str(line["values"]) for line in flush}) == 1
    assert_follows_oracle(lines)


def test_joiners_and_donors_die_during_a_join(job: Job) -> None:
    start(job, padding_bytes=1 << 24)

    with job.board.hold(matching(event="load", life=1)) as held:
        kill(job, 3)
        joiner = held()
        job.kill(joiner["pid"])
    back = matching(event="round", rank=3, life=2)
    with job.board.hold(lambda line: line["event"] == "donate") as held:
        donor = held()
        donor_back = kill(job, donor["rank"])
    job.board.wait(back, 3)
    wait_back(job, donor_back)

    assert_groups_agree(job)
    end(job)


def _has_mates(line: Line, rank: int) -> bool:
    return line["event"] == "round" and line["rank"] == rank and len(line["members"]) > 1


def test_all_workers_but_one_die(job: Job) -> None:
    start(job)
    since = time.monotonic()
    alone = latest(job, 5)

    returns = kill(job, *(rank for rank in range(WORKERS) if rank != 5))
    wait_back(job, returns)
    # Its mates may be ahead of it by the rounds that it had frozen alone.
    job.board.wait(lambda line: line["seen"] > since and _has_mates(line, rank=5), 1)

    mine = [line for line in job.board.rounds(rank=5) if line["seen"] > since]
    assert {line["pid"] for line in mine} == {alone["pid"]}
    assert mine[-1]["steps"] > alone["steps"]
    restored = job.board.select(lambda line: line["event"] == "load" and line["seen"] > since)
    assert min(line["steps"] for line in restored) >= alone["steps"]
    end(job)


def test_a_worker_comes_back_though_the_jobs_secret_has_been_removed(
    job: Job, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    job.standalone(2, "--token-file", str(token), "--max-restarts", "1")
    job.board.wait(matching(event="round"), 4)

    token.unlink()
    wait_back(job, kill(job, 1))

    end(job)
