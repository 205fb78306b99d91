"""Strict commits: whatever dies, joins or drains, every sample counts once in each epoch.

``make soak-data SEEDS=20`` runs many seeds with 50 faults each.
"""

import os
from collections import Counter

import pytest

from examples.demo.tally import tally
from integration.job.chaos import Chaos
from integration.job.harness import Job, matching

EPOCHS = 2
SEEDS = int(os.environ.get("SOAK_SEEDS", "0"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "seed"), [("digits", 1), ("charlm", 2)])
def test_every_sample_is_committed_once_in_each_epoch(job: Job, kind: str, seed: int) -> None:
    check(job, kind, seed, faults=7, samples=8000)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 100 + SEEDS))
def test_many_faults_change_nothing(job: Job, seed: int) -> None:
    check(job, ("digits", "charlm")[seed % 2], seed, faults=50, samples=40000)


def check(job: Job, kind: str, seed: int, faults: int, samples: int) -> None:
    pace = job.folder / "pace"
    pace.touch()
    # The last batch of an epoch is a single sample.
    spec = {"kind": kind, "samples": samples + 1, "batch_size": 4, "epochs": EPOCHS}
    spec |= {"pace_file": str(pace), "pace_seconds": 0.06, "sync": {"group_size": 3}}
    flags = ("--commit", "strict", "--max-restarts", "1000", "--seed", str(seed))
    chaos = Chaos(job, seed, flags, spec)
    chaos.start()
    while len(chaos.done) < faults:
        assert chaos.strike(), f"the data was over after {chaos.done}"
    pace.unlink()
    for launcher in job.launchers:
        launcher.end()

    found = tally(job.board.select(lambda line: line["event"] in ("step", "round")))
    expected = Counter(dict.fromkeys(range(samples + 1), EPOCHS))
    assert found.explains(expected), (
        chaos.done,
        expected - found.committed,
        found.committed - expected,
        found.open,
    )
    total = EPOCHS * -(-(samples + 1) // 4)
    assert any(f"committed={total} total={total} repeated=0" in each.text for each in job.launchers)
    assert any(line["progress"] == 1.0 for line in job.board.select(matching(event="over")))
