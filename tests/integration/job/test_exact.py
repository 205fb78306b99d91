"""Whatever dies, freezes, joins or drains: nobody else is touched, and the data are exact.

Commits are strict, so every sample counts once in each epoch. ``make soak-data SEEDS=20`` runs many
seeds with 50 faults each, ``make chaos EVENTS=1000 SEED=1`` one long run.
"""

import os
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

import pytest

from dssync.control.viewlog import Attempt, records_in
from examples.demo.tally import Line, Tally, Trial, tally
from integration.job.chaos import HANG_SECONDS, Chaos, key_of
from integration.job.harness import Job

SAMPLES = 8001
BATCH_SIZE = 4
SEEDS = int(os.environ.get("SOAK_SEEDS", "0"))
EVENTS = int(os.environ.get("CHAOS_EVENTS", "100"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "seed"), [("digits", 1), ("charlm", 2)])
def test_every_sample_is_committed_once_in_each_epoch(job: Job, kind: str, seed: int) -> None:
    check(job, kind, seed, faults=7, epochs=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 100 + 2 * SEEDS))
def test_many_faults_change_nothing(job: Job, seed: int) -> None:
    check(job, ("digits", "charlm")[seed % 2], seed, faults=50, epochs=4, is_mild=True)


@pytest.mark.slow
@pytest.mark.timeout(200 + 15 * EVENTS)
def test_chaos(job: Job) -> None:
    check(job, "digits", SEED, faults=EVENTS, epochs=2 + EVENTS // 25)


def check(job: Job, kind: str, seed: int, faults: int, epochs: int, is_mild: bool = False) -> None:
    pace = job.folder / "pace"
    pace.touch()
    # The last batch of an epoch is a single sample.
    spec = {"kind": kind, "samples": SAMPLES, "batch_size": BATCH_SIZE, "epochs": epochs}
    spec |= {"pace_file": str(pace), "pace_seconds": 0.06, "sync": {"group_size": 3}}
    log = ("--view-log", str(job.folder / "views"))  # what it takes to play a failure again
    flags = ("--commit", "strict", "--max-restarts", "1000", "--seed", str(seed), *log)
    chaos = Chaos(job, seed, flags, spec, is_mild)
    try:
        chaos.start()
        while len(chaos.done) < faults:
            assert chaos.strike(), f"the data was over after {chaos.done}"
        chaos.settle()
    finally:
        (job.folder / "chaos").write_text("\n".join(chaos.done))
    pace.unlink()
    chaos.end()

    found = committed(job, chaos)
    expected = batches_of(found, epochs)
    assert found.explains(expected), (
        chaos.done,
        expected - found.committed,
        found.committed - expected,
        found.open,
    )
    total = epochs * -(-SAMPLES // BATCH_SIZE)
    assert any(f"committed={total} total={total} repeated=0" in each.text for each in job.launchers)
    ends = chaos.ends.values()
    assert {(line["event"], line.get("progress")) for line in ends} == {("over", 1.0)}, chaos.done
    assert len({line["digest"] for line in ends}) == 1, chaos.done
    assert chaos.longest_silence() < HANG_SECONDS, chaos.done
    assert any(chaos.cuts) or not chaos.cuts, "no cut has ended a connection"


def batches_of(found: Tally, epochs: int) -> Counter[Hashable]:
    """Return the batches that cover the data once in each epoch.

    Which samples are together tells the epoch of a whole batch. What is left over must be the
    single samples at the ends of epochs.
    """
    seen = {batch for part in (found.committed, *found.open) for batch in part}
    whole = [batch for batch in seen if isinstance(batch, tuple) and len(batch) == BATCH_SIZE]
    data = Counter(dict.fromkeys(range(SAMPLES), epochs))
    inside = Counter(sample for batch in whole for sample in batch)
    assert inside <= data, "batches of other epochs"
    ends = {(sample,): count for sample, count in (data - inside).items()}
    return Counter[Hashable](whole) + Counter(ends)


def committed(job: Job, chaos: Chaos) -> Tally:
    """Return which batches were committed, and which were if a lost coordinator knew of it."""
    lines: list[Line] = []
    doubtful = chaos.doubtful_rounds()
    for line in job.board.select(lambda line: line["event"] in ("step", "round")):
        batches = [tuple(batch) for batch in line["batches"]]
        told = {"pending": batches} if line["event"] == "step" else {"samples": batches}
        if line["event"] == "round" and key_of(line) in doubtful:
            # It tells where its member was, but neither what is committed nor with whom.
            told = {"samples": [], "members": []}
        lines.append({**line, **told})
    return tally(lines, trials_in(job.folder / "views"))


def trials_in(log: Path) -> dict[str, list[Trial]]:
    """Return what each member gave to attempts: it says so before a mate can see it."""
    trials: dict[str, list[Trial]] = {}
    with log.open("rb") as lines:
        for record in records_in(lines, str(log)):
            if isinstance(record, Attempt):
                stages = record.assign.stages if record.assign.kind == "train" else ()
                mates = {key for stage in stages for key in stage.members} - {record.member}
                trial = Trial(record.assign.round, frozenset(mates))
                trials.setdefault(record.member, []).append(trial)
    return trials
