"""However the loop is fed, each sample counts once in an epoch, while workers die and come back."""

import random
from collections import Counter

import pytest

from examples.demo.tally import tally
from integration.job.harness import Job, Launcher, matching

SAMPLES, BATCH_SIZE, EPOCHS = 1501, 4, 2
WORKERS, GROUP_SIZE, KILLS = 3, 2, 3


def start(job: Job, commit: str = "strict", **more: object) -> Launcher:
    pace = {"pace_file": str(job.folder / "pace"), "pace_seconds": 0.05}
    (job.folder / "pace").touch()
    size = {"kind": "digits", "samples": SAMPLES, "batch_size": BATCH_SIZE, "epochs": EPOCHS}
    flags = ("--commit", commit, "--max-restarts", "99", "--group-size", str(GROUP_SIZE))
    launcher = job.standalone(WORKERS, *flags, script="exact.py", **size, **pace, **more)
    job.board.wait(matching(event="round"), 4 * WORKERS)
    return launcher


def kill_some(job: Job, launcher: Launcher) -> None:
    """Kill workers one after the other, each when the one before has come back."""
    dice = random.Random(1)
    for kill in range(1, KILLS + 1):
        victim = job.board.next(matching(event="step", rank=dice.randrange(WORKERS)))
        job.kill(victim["pid"])
        job.board.wait(launcher.says("contributes"), kill)


def check_end(job: Job, launcher: Launcher) -> None:
    (job.folder / "pace").unlink()
    assert launcher.end() == 0, launcher.text
    lines = job.board.select(lambda line: line["event"] in ("step", "round"))
    assert tally(lines).explains(Counter(dict.fromkeys(range(SAMPLES), EPOCHS)))


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "spec",
    [
        {"feed": "sampler", "loader_workers": 2},
        {"feed": "shard"},
        {"feed": "names", "loader_workers": 1, "accumulate": 3},
        {"feed": "batches", "loader_workers": 4, "accumulate": 2},
    ],
    ids=lambda spec: spec["feed"],
)
def test_kills_and_joins_cost_and_repeat_no_sample(job: Job, spec: dict[str, object]) -> None:
    launcher = start(job, **spec)
    kill_some(job, launcher)
    check_end(job, launcher)


@pytest.mark.timeout(240)
def test_relaxed_commits_cost_or_repeat_at_most_a_round_of_a_group_for_each_kill(job: Job) -> None:
    launcher = start(job, commit="relaxed")
    kill_some(job, launcher)
    (job.folder / "pace").unlink()
    assert launcher.end() == 0, launcher.text

    found = tally(job.board.select(lambda line: line["event"] in ("step", "round"))).committed
    expected = Counter(dict.fromkeys(range(SAMPLES), EPOCHS))
    assert (expected - found).total() <= KILLS * GROUP_SIZE * BATCH_SIZE
    assert (found - expected).total() <= KILLS * GROUP_SIZE * BATCH_SIZE
    batches = EPOCHS * -(-SAMPLES // BATCH_SIZE)
    assert f"committed={batches} total={batches} repeated=" in launcher.text


@pytest.mark.timeout(240)
def test_mates_train_on_while_a_member_is_away_and_it_comes_back_as_one_of_them(job: Job) -> None:
    with job.board.hold(matching(event="away")) as held:
        launcher = start(job, away_at=[1, 0, 6], loader_workers=1)
        away = held()["own"]
        last = job.board.rounds(own=away)[-1]["round"]
        without = job.board.wait(lambda line: line["event"] == "round" and line["round"] > last, 8)

    assert all(away not in line["members"] for line in without)
    back = job.board.next(matching(event="round", own=away, result="committed"))
    assert len(back["members"]) > 1
    check_end(job, launcher)
    ends = job.board.select(matching(event="over"))
    assert len({line["digest"] for line in ends}) == 1
    assert len(ends) == WORKERS
