"""Many workers, many rounds: nothing may take long, and nothing may pile up."""

import os
import random
import re
import time
from pathlib import Path
from statistics import median

import pytest

from integration.job.harness import Job, matching

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SOAK_ROUNDS = int(os.environ.get("SOAK_ROUNDS", "2000"))
WARM_ROUND = 200
STEADY_ROUND = max(1000, SOAK_ROUNDS // 10)
"""From here on memory is compared: before, a fork still touches pages for the first time."""
SPARED = 2
"""The first workers are never killed; they are measured."""


def test_sixty_four_workers_form_and_run_twenty_rounds_in_a_minute(job: Job) -> None:
    began = time.monotonic()

    launcher = job.standalone(64, samples=64 * 20, talks_every=1000, sync={"group_size": 4})

    assert launcher.end() == 0
    assert time.monotonic() - began < 60
    over = job.board.select(matching(event="over"))
    assert len(over) == 64
    assert len({str(line["bits"]) for line in over}) == 1


def footprint(pid: int) -> tuple[int, int, int]:
    """Return descriptors, threads and resident kilobytes of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    threads, resident = (
        int(re.search(rf"{name}:\s+(\d+)", status)[1])  # type: ignore[index]
        for name in ("Threads", "VmRSS")
    )
    return len(os.listdir(f"/proc/{pid}/fd")), threads, resident


def settled_footprint(job: Job, pids: list[int]) -> list[tuple[int, int, float]]:
    """Measure during calm rounds: what is only passing by is not there in each sample."""
    for _ in range(5):
        job.board.next(matching(event="round", rank=0))
    samples: list[list[tuple[int, int, int]]] = [[] for _ in pids]
    for _ in range(20):
        job.board.next(matching(event="round", rank=0))
        for found, pid in zip(samples, pids, strict=True):
            found.append(footprint(pid))
    return [
        (min(s[0] for s in found), min(s[1] for s in found), median(s[2] for s in found))
        for found in samples
    ]


def test_nothing_piles_up_while_workers_come_and_go(job: Job) -> None:
    launcher = job.standalone(
        8, "--max-restarts", "100000", talks_every=10, elements=1 << 12, sync={"group_size": 4}
    )
    first = job.board.wait(matching(event="ready"), 8)
    pids = [launcher.pid, *(line["pid"] for line in first if line["rank"] < SPARED)]
    dice = random.Random(5)

    churn(job, dice, WARM_ROUND)
    warm = settled_footprint(job, pids)
    churn(job, dice, STEADY_ROUND)
    steady = settled_footprint(job, pids)
    churn(job, dice, SOAK_ROUNDS)
    last = settled_footprint(job, pids)

    assert [(files, threads) for files, threads, _ in last] == [
        (files, threads) for files, threads, _ in warm
    ]
    grown = [after - before for (*_, before), (*_, after) in zip(steady, last, strict=True)]
    print(f"launcher and workers: {grown} kB more in {SOAK_ROUNDS - STEADY_ROUND} rounds")
    assert max(grown) <= 1024


def churn(job: Job, dice: random.Random, until_round: int) -> None:
    """Kill a worker, wait until it has come back, and so on up to a round."""
    lives = {line["rank"]: line["life"] for line in job.board.select(matching(event="ready"))}
    while job.board.next(matching(event="round", rank=0))["round"] < until_round:
        rank = dice.randrange(SPARED, 8)
        (victim,) = job.board.wait(matching(event="ready", rank=rank, life=lives[rank]))
        job.kill(victim["pid"])
        lives[rank] += 1
        job.board.wait(matching(event="round", rank=rank, life=lives[rank]))
