"""Kill -9 of a whole job at random points of its saves, again and again. ``make bench-resume``.

The job is ``examples/digits`` with two workers. Each life resumes from what the last one left; the
view log, which outlives its writers, says how far each came and when it flushed and published.
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
from benchmarks.resume.lives import INTERVAL, Life, life_of, lost_by, may_lose
from dssync.control.viewlog import records_in
from dssync.worker import checkpoint

SCRIPT: Final = Path(__file__).parents[2] / "examples/digits/train.py"
FOLDER: Final = OUTPUT.parent / "bench-resume"
SAVED: Final = FOLDER / "saved"
SPAN: Final = 40
"""Rounds that a life trains for, at most, before it is killed at a save."""


@dataclass(frozen=True)
class End:
    """The end of a life that was killed, in rounds."""

    lost: int
    beyond: int
    """How many more were lost than may be."""
    tore: bool
    """It left a checkpoint behind that was being written."""


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


def newest() -> str:
    """Return the name of the newest checkpoint; empty: there is none."""
    folders = checkpoint.published(SAVED)
    return folders[-1].name if folders else ""


def unfinished() -> set[str]:
    """Return the names of checkpoints that are being written, or never will be."""
    return {each.name for each in SAVED.glob(f"{checkpoint.SAVING}*")}


def kill_at_a_save(process: subprocess.Popen[bytes], dice: random.Random, log: Path) -> None:
    """Wait for some saves of this life, then kill everything a moment after one has begun."""
    for _ in range(dice.randint(1, 4)):
        known = unfinished()
        while process.poll() is None and not unfinished() - known:
            time.sleep(0.001)
    # Where a save lasts a few milliseconds, those at once tear it.
    time.sleep(dice.choice((0.0, dice.uniform(0, 0.01))))
    process.send_signal(signal.SIGKILL)
    process.wait()
    # The workers die with their launcher, by a signal of the kernel; then nobody writes any more.
    size = -1
    while log.stat().st_size != size:
        size = log.stat().st_size
        time.sleep(0.2)


def ended(life: Life, before: str, torn_before: set[str]) -> End:
    """Return what the end of a life has cost, given what was there before it.

    Its newest checkpoint must be whole.
    """
    after = newest()
    held = checkpoint.read(SAVED / after).facts.round if after else -1
    kept = -1 if after == before else held
    lost = lost_by(life, kept)
    return End(lost, lost - may_lose(life, kept), bool(unfinished() - torn_before))


def live(kills: int, epochs: int, dice: random.Random) -> tuple[list[Life], list[End], float]:
    """Kill the job so many times, then let it end; return lives, their ends and the accuracy."""
    lives, ends = [], []
    out = FOLDER / "killed.json"
    for number in range(kills + 1):
        before, torn_before, log = newest(), unfinished(), FOLDER / f"views-{number}"
        process = start(epochs, out, log)
        if number == kills:
            process.wait()
        else:
            kill_at_a_save(process, dice, log)
        with log.open("rb") as lines:
            life = life_of(records_in(lines, str(log)))
        if before and not life.resumed:
            sys.exit(f"life {number} did not resume from the whole {before}")
        lives.append(life)
        if number < kills:
            ends.append(ended(life, before, torn_before))
            print(f"kill {number + 1}: round {life.last}, {ends[-1]}", flush=True)
    return lives, ends, accuracy(out)


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
    lives, ends, killed = live(options.kills, epochs, random.Random(options.seed))
    case = f"digits, 2 workers, {options.kills} kills"
    report = Report(
        "resume",
        "make bench-resume",
        machine(),
        versions("torch", "safetensors"),
        [
            figure(case, "dssync", "rounds lost by a kill", "rounds",
                   [end.lost for end in ends]),
            figure(case, "dssync", "rounds during a save, slowest of a life", "rounds",
                   [life.slowest_save for life in lives]),
            figure(case, "undisturbed", "accuracy", "points", [whole]),
            figure(case, "killed and resumed", "accuracy", "points", [killed]),
        ],
        (),
        [
            at_least("resumed", sum(life.resumed for life in lives), options.kills - 1, "lives"),
            at_most("lost beyond what it may", max(end.beyond for end in ends), 0, "rounds"),
            at_least("torn", sum(end.tore for end in ends), options.kills / 2, "saves"),
            at_most("accuracy", abs(whole - killed), 0.5, "points"),
        ],
    )  # fmt: skip
    publish(report)
    sys.exit(not all(bar.holds for bar in report.bars))


if __name__ == "__main__":
    main()
