"""Kill -9 of a whole job at random points of its saves, again and again. ``make bench-resume``.

The job is ``examples/digits`` with two workers. Each life resumes from what the last one left; the
view log, which outlives its writers, says how far each came and when it published. What is counted
is outside the coordinator: rounds that a member has applied and no whole checkpoint holds are lost.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.publish import OUTPUT, machine, publish, versions
from benchmarks.results import Report, at_least, at_most, figure
from dssync.control.viewlog import Applied, Entered, Saved, records_in
from dssync.worker import checkpoint

SCRIPT: Final = Path(__file__).parents[2] / "examples/digits/train.py"
FOLDER: Final = OUTPUT.parent / "bench-resume"
SAVED: Final = FOLDER / "saved"
INTERVAL: Final = 10
"""Optimizer steps, and so rounds, between two saves."""
ROUNDS_AHEAD: Final = 4
"""A flush is asked for when a save is due, and appointed behind the rounds that are frozen."""
SPAN: Final = 40
"""Rounds that a life trains for, at most, before it is killed at a save."""


@dataclass(frozen=True)
class Saving:
    """A checkpoint."""

    name: str
    """Empty: there is none."""
    round: int
    """In the life that has saved it: each life counts its rounds from 0."""


@dataclass(frozen=True)
class Life:
    """One life of the job."""

    last: int
    """Last round that a member applied; -1 for none."""
    resumed: bool
    slowest_save: int
    """Rounds that were applied while a save was written, at most."""


def start(epochs: int, out: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the job, saving every ``INTERVAL`` steps."""
    variables = {
        "DSSYNC_CHECKPOINT_PATH": str(SAVED),
        "DSSYNC_CHECKPOINT_INTERVAL_STEPS": str(INTERVAL),
    }
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "dssync.cli", "run", "--standalone", "--nproc-per-node", "2"),
            *("--group-size", "2", "--commit", "strict", "--view-log", str(log), str(SCRIPT)),
            *("--epochs", str(epochs), "--out", str(out)),
        ],
        env={**os.environ, **variables},
        stderr=subprocess.DEVNULL,
    )


def newest() -> Saving:
    """Return the newest checkpoint, which must be whole."""
    folders = checkpoint.published(SAVED)
    if not folders:
        return Saving("", -1)
    return Saving(folders[-1].name, checkpoint.read(folders[-1]).facts.round)


def lost_by(life: Life, before: Saving, after: Saving) -> int:
    """Return how many rounds of a life its end has cost, given what was saved before and after."""
    return life.last + 1 if after.name == before.name else life.last - after.round


def kill_at_a_save(process: subprocess.Popen[bytes], dice: random.Random, log: Path) -> None:
    """Wait for some saves of this life, then kill everything a moment after one has begun."""
    for _ in range(dice.randint(1, 4)):
        known = {each.name for each in SAVED.glob(f"{checkpoint.SAVING}*")}
        while process.poll() is None:
            if {each.name for each in SAVED.glob(f"{checkpoint.SAVING}*")} - known:
                break
            time.sleep(0.001)
    time.sleep(dice.uniform(0, 0.02))
    process.send_signal(signal.SIGKILL)
    process.wait()
    # The workers die with their launcher, by a signal of the kernel; then nobody writes any more.
    size = -1
    while log.stat().st_size != size:
        size = log.stat().st_size
        time.sleep(0.2)


def life_of(log: Path) -> Life:
    """Return what a life did, from its log."""
    last, slowest, resumed = -1, 0, False
    with log.open("rb") as lines:
        for record in records_in(lines, str(log)):
            match record:
                case Entered(source=source):
                    resumed = resumed or source.startswith("checkpoint:")
                case Applied(round=number):
                    last = max(last, number)
                case Saved(round=number):
                    slowest = max(slowest, last - number)
                case _:
                    pass
    return Life(last, resumed, slowest)


def live(kills: int, epochs: int, dice: random.Random) -> tuple[list[Life], list[int], float]:
    """Kill the job so many times, then let it end; return lives, lost rounds and the accuracy."""
    lives, lost = [], []
    out = FOLDER / "killed.json"
    for number in range(kills + 1):
        before, log = newest(), FOLDER / f"views-{number}"
        process = start(epochs, out, log)
        if number == kills:
            process.wait()
        else:
            kill_at_a_save(process, dice, log)
        life = life_of(log)
        if before.name and not life.resumed:
            sys.exit(f"life {number} did not resume from the whole {before.name}")
        lives.append(life)
        if number < kills:
            lost.append(lost_by(life, before, newest()))
            print(f"kill {number + 1}: round {life.last}, {lost[-1]} rounds lost", flush=True)
    return lives, lost, accuracy(out)


def accuracy(out: Path) -> float:
    """Return the accuracy that a run wrote, in points."""
    return 100.0 * float(json.loads(out.read_text())["accuracy"])


def undisturbed(epochs: int) -> float:
    """Return the accuracy of a run that nobody kills."""
    shutil.rmtree(SAVED, ignore_errors=True)
    out = FOLDER / "whole.json"
    start(epochs, out, FOLDER / "views-whole").wait()
    return accuracy(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    # Two workers share the 90 batches of an epoch.
    epochs = 30 + options.kills * SPAN // 45
    whole = undisturbed(epochs)
    shutil.rmtree(SAVED)
    lives, lost, killed = live(options.kills, epochs, random.Random(options.seed))
    slowest = max(life.slowest_save for life in lives)
    case = f"digits, 2 workers, {options.kills} kills"
    report = Report(
        "resume",
        "make bench-resume",
        machine(),
        versions("torch", "safetensors"),
        [
            figure(case, "dssync", "rounds lost by a kill", "rounds", lost),
            figure(case, "dssync", "rounds during a save, slowest of a life", "rounds",
                   [life.slowest_save for life in lives]),
            figure(case, "undisturbed", "accuracy", "points", [whole]),
            figure(case, "killed and resumed", "accuracy", "points", [killed]),
        ],
        (),
        [
            at_least("resumed", sum(life.resumed for life in lives), options.kills - 1, "lives"),
            at_most("lost", max(lost), INTERVAL + ROUNDS_AHEAD + 2 * slowest, "rounds"),
            at_most("accuracy", abs(whole - killed), 0.5, "points"),
        ],
    )  # fmt: skip
    publish(report)
    sys.exit(not all(bar.holds for bar in report.bars))


if __name__ == "__main__":
    main()
