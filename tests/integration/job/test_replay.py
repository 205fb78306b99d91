"""A recorded run is played again: same members, same rounds, same bits.

``make soak-replay SEEDS=20`` does it with 20 runs of several pods, ten faults each.
"""

import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from integration.job.chaos import Chaos, completed
from integration.job.harness import Job, Launcher, Line, matching

SEEDS = int(os.environ.get("SOAK_SEEDS", "0"))
KILLS, WORKERS, SAMPLES = 3, 4, 3000
FAULTS = 10


def spec_of(job: Job, kind: str, samples: int) -> dict[str, object]:
    """Return what the script is told in both runs; while it is recorded its steps are slow."""
    pace = {"pace_file": str(job.folder / "pace"), "pace_seconds": 0.03}
    size = {"kind": kind, "samples": samples, "batch_size": 4, "epochs": 1}
    return {**size, **pace, "sync": {"group_size": 3}}


def kill_some(job: Job, flags: tuple[str, ...], spec: dict[str, object]) -> None:
    """Train in one launcher and kill workers, each of which comes back as a joiner."""
    dice = random.Random(1)
    launcher = job.standalone(WORKERS, "--max-restarts", "99", *flags, script="exact.py", **spec)
    job.board.wait(matching(event="round"), 4 * WORKERS)
    for kill in range(1, KILLS + 1):
        victim = job.board.next(matching(event="step", rank=dice.randrange(WORKERS)))
        job.kill(victim["pid"])
        job.board.wait(launcher.says("contributes"), kill)
    (job.folder / "pace").unlink()
    assert launcher.end() == 0


def disturb(job: Job, seed: int, flags: tuple[str, ...], spec: dict[str, object]) -> None:
    """Train in several pods under kills, joins and drains."""
    chaos = Chaos(job, seed, ("--max-restarts", "99", *flags), spec)
    chaos.start()
    while len(chaos.done) < FAULTS:
        assert chaos.strike(), f"the data was over after {chaos.done}"
    (job.folder / "pace").unlink()
    job.board.wait(completed)
    job.coordinator().end()
    for launcher in job.launchers:
        if launcher.process.poll() is None:  # a pod that came too late to take part
            launcher.signal(signal.SIGKILL)
            launcher.end()


def replay(job: Job, spec: dict[str, object], *flags: str) -> Launcher:
    return job.run("--replay", str(log_of(job)), *flags, script="exact.py", **spec)


def log_of(job: Job) -> Path:
    return job.folder / "views"


def rounds(lines: list[Line]) -> dict[tuple[str, int], tuple[object, ...]]:
    """Return what each member said of each round that it applied."""
    return {
        (x["own"], x["round"]): (x["samples"], x["members"], x["attempts"], x["result"])
        for x in lines
        if x["event"] == "round"
    }


def digests(lines: list[Line]) -> dict[str, str]:
    """Return of which bits the parameters of each member were that came to the end."""
    return {x["own"]: x["digest"] for x in lines if x["event"] == "over"}


def values_in(folder: Path) -> list[dict[str, bytes]]:
    """Return what each member in a folder has averaged."""
    found = [load_file(path) for path in sorted(folder.iterdir())]
    return [
        {k: t.numpy().tobytes() for k, t in each.items() if t.is_floating_point()} for each in found
    ]


def check(job: Job, spec: dict[str, object], since: int = 0) -> None:
    """Play the log again: the same rounds as from that line on, and the same bits at the end."""
    recorded, bits = rounds(job.board.lines[since:]), digests(job.board.lines[since:])
    number = len(job.board.lines)
    log = [json.loads(line) for line in log_of(job).read_text().splitlines()]
    ends = [record for record in log if record[0] == "Left" and record[2]]
    assert bits, "nobody came to the end"

    player = replay(job, spec)

    assert player.end() == 0, player.text
    played = rounds(job.board.lines[number:])
    # Who was killed may have applied a round of which it said nothing.
    assert recorded.items() <= played.items()
    assert bits.items() <= digests(job.board.lines[number:]).items()
    # Those that had a place in turn leave the values of the last one.
    assert len(values_in(log_of(job).with_name("views.replayed"))) == len(
        {member.rpartition(".")[0] for _, member, *_ in ends}
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """A job whose workers were killed and came back, and its log."""
    made = Job(tmp_path_factory.mktemp("recorded"))
    (made.folder / "pace").touch()
    kill_some(made, ("--view-log", str(log_of(made))), spec_of(made, "digits", SAMPLES))
    yield made
    made.stop()


@pytest.mark.timeout(240)
def test_a_run_with_kills_and_joins_gives_the_same_bits_again(recorded: Job) -> None:
    check(recorded, spec_of(recorded, "digits", SAMPLES))


@pytest.mark.timeout(240)
def test_a_replay_can_end_at_a_round(recorded: Job) -> None:
    known, number = rounds(recorded.board.lines), len(recorded.board.lines)
    half = recorded.folder / "half"
    spec = spec_of(recorded, "digits", SAMPLES)

    player = replay(recorded, spec, "--until", "12", "--replay-out", str(half))

    assert player.end() == 0, player.text
    played = rounds(recorded.board.lines[number:])
    assert max(round_ for _, round_ in played) == 12
    assert played.items() <= known.items()
    assert values_in(half)


@pytest.mark.timeout(240)
def test_a_run_that_was_resumed_begins_again_with_its_checkpoint(job: Job) -> None:
    (job.folder / "pace").touch()
    spec = spec_of(job, "digits", SAMPLES)
    saves = {
        "DSSYNC_CHECKPOINT_PATH": str(job.folder / "saved"),
        "DSSYNC_CHECKPOINT_INTERVAL_STEPS": "20",
        "DSSYNC_CHECKPOINT_KEEP": "100",
    }
    flags = ("--standalone", "--nproc-per-node", "3")
    first = job.run(*flags, script="exact.py", environment=saves, **spec)
    job.board.wait(first.says("checkpoint", "holds round"), 2)
    first.signal(signal.SIGKILL)
    first.end()
    killed_at = len(job.board.lines)
    (job.folder / "pace").unlink()
    logged = (*flags, "--view-log", str(log_of(job)))
    second = job.run(*logged, script="exact.py", environment=saves, **spec)
    assert second.end() == 0
    assert "resumed from" in second.text

    check(job, spec, killed_at)


@pytest.mark.timeout(240)
def test_another_script_is_found_at_the_first_round_in_which_it_matters(recorded: Job) -> None:
    player = replay(recorded, spec_of(recorded, "charlm", SAMPLES))

    assert player.end() != 0
    assert "brings other values into round 0 than the log's" in player.text


@pytest.mark.timeout(240)
def test_a_replay_whose_workers_cannot_start_says_so(recorded: Job, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('there is no room')")
    flags = ("--replay", str(log_of(recorded)))

    player = recorded.run(*flags, script="exact.py", environment={"PYTHONPATH": str(tmp_path)})

    assert player.end() == 1
    *_, sentence = player.text.splitlines()
    assert sentence.startswith("dssync: the process of 0.")
    assert sentence.endswith("could not be started: the fork-server ended before a worker started")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(200, 200 + SEEDS))
def test_many_faults_give_the_same_bits_again(job: Job, seed: int) -> None:
    (job.folder / "pace").touch()
    kind, commit = ("digits", "charlm")[seed % 2], ("relaxed", "strict")[seed // 2 % 2]
    spec = spec_of(job, kind, samples=16000)
    flags = ("--commit", commit, "--seed", str(seed), "--view-log", str(log_of(job)))
    disturb(job, seed, flags, spec)

    check(job, spec)
