"""Kill -9 of a whole job at random points of its saves, again and again. ``make bench-resume``.

The jobs are ``examples/digits`` with two workers, each with another fifth of the data held out.
Each life resumes from what the last one left; the view log, which outlives its writers, says how
far each came and when it flushed and published.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.publish import OUTPUT, machine, publish, show, versions
from benchmarks.results import Report, at_least, at_most, figure
from benchmarks.resume.lives import INTERVAL, Life, life_of, lost_by, may_lose
from dssync.control.viewlog import records_in
from dssync.worker import checkpoint

SCRIPT: Final = Path(__file__).parents[2] / "examples/digits/train.py"
FOLDER: Final = OUTPUT.parent / "bench-resume"
KILLS: Final = 100
FOLDS: Final = 5
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


@dataclass(frozen=True)
class Job:
    """A job that saves every ``INTERVAL`` steps, with what it leaves in a folder of its own."""

    folder: Path
    fold: int
    """Which fifth of the data is held out."""
    epochs: int

    @property
    def saved(self) -> Path:
        """Where its checkpoints are."""
        return self.folder / "saved"

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """Start it, or start it again."""
        variables = {
            "DSSYNC_CHECKPOINT_PATH": str(self.saved),
            "DSSYNC_CHECKPOINT_INTERVAL_STEPS": str(INTERVAL),
        }
        world = ("--standalone", "--nproc-per-node", "2", "--group-size", "2")
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "dssync.cli", "run", *world),
                *("--commit", "strict", "--view-log", str(log), str(SCRIPT)),
                *("--epochs", str(self.epochs), "--fold", str(self.fold)),
                *("--out", str(self.folder / "result.json")),
            ],
            env={**os.environ, **variables},
            stderr=subprocess.DEVNULL,
        )

    def newest(self) -> str:
        """Return the name of the newest checkpoint; empty: there is none."""
        folders = checkpoint.published(self.saved)
        return folders[-1].name if folders else ""

    def unfinished(self) -> set[str]:
        """Return the names of checkpoints that are being written, or never will be."""
        return {each.name for each in self.saved.glob(f"{checkpoint.SAVING}*")}

    def accuracy(self) -> float:
        """Return the accuracy that its last life wrote, in points."""
        return 100.0 * float(json.loads((self.folder / "result.json").read_text())["accuracy"])


def kill_at_a_save(
    job: Job, process: subprocess.Popen[bytes], dice: random.Random, log: Path
) -> None:
    """Wait for some saves of this life, then kill everything a moment after one has begun."""
    for _ in range(dice.randint(1, 4)):
        known = job.unfinished()
        while process.poll() is None and not job.unfinished() - known:
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


def ended(job: Job, life: Life, before: str, torn_before: set[str]) -> End:
    """Return what the end of a life has cost, given what was there before it.

    Its newest checkpoint must be whole.
    """
    after = job.newest()
    held = checkpoint.read(job.saved / after).facts.round if after else -1
    kept = -1 if after == before else held
    lost = lost_by(life, kept)
    return End(lost, lost - may_lose(life, kept), bool(job.unfinished() - torn_before))


def live(job: Job, kills: int, dice: random.Random) -> tuple[list[Life], list[End]]:
    """Kill the job so many times, then let it end; return its lives and their ends."""
    lives, ends = [], []
    for number in range(kills + 1):
        before, torn_before = job.newest(), job.unfinished()
        log = job.folder / f"views-{number}"
        process = job.start(log)
        if number == kills:
            process.wait()
        else:
            kill_at_a_save(job, process, dice, log)
        with log.open("rb") as lines:
            life = life_of(records_in(lines, str(log)))
        if before and not life.resumed:
            sys.exit(f"life {number} of {job} did not resume from the whole {before}")
        lives.append(life)
        if number < kills:
            ends.append(ended(job, life, before, torn_before))
            print(f"fold {job.fold}, kill {number + 1}: round {life.last}, {ends[-1]}", flush=True)
    return lives, ends


def undisturbed(job: Job) -> float:
    """Return the accuracy of a job that nobody kills."""
    job.folder.mkdir(parents=True)
    job.start(job.folder / "views").wait()
    return job.accuracy()


@dataclass(frozen=True)
class Fold:
    """What one job came to, killed and left alone. Accuracies in points."""

    lives: list[Life]
    ends: list[End]
    killed: float
    whole: float


def measure(fold: int, kills: int, dice: random.Random) -> Fold:
    """Kill a job so many times, and let its twin train as long undisturbed."""
    # Two workers share the 90 batches of an epoch.
    epochs = 30 + kills * SPAN // 45
    whole = undisturbed(Job(FOLDER / f"whole-{fold}", fold, epochs))
    job = Job(FOLDER / f"killed-{fold}", fold, epochs)
    job.folder.mkdir()
    lives, ends = live(job, kills, dice)
    print(f"fold {fold}: {job.accuracy():.2f} beside {whole:.2f} points", flush=True)
    return Fold(lives, ends, job.accuracy(), whole)


def report_of(folds: list[Fold]) -> Report:
    """Judge all jobs together."""
    lives = [life for fold in folds for life in fold.lives]
    ends = [end for fold in folds for end in fold.ends]
    differences = [fold.killed - fold.whole for fold in folds]
    kills, case = len(ends), f"digits, 2 workers, {len(folds)} jobs, {len(ends)} kills"
    return Report(
        "resume",
        "make bench-resume",
        machine(),
        versions("torch", "safetensors"),
        [
            figure(case, "dssync", "rounds lost by a kill", "rounds",
                   [end.lost for end in ends]),
            figure(case, "dssync", "rounds during a save, slowest of a life", "rounds",
                   [life.slowest_save for life in lives]),
            figure(case, "undisturbed", "accuracy", "points", [fold.whole for fold in folds]),
            figure(case, "killed and resumed", "accuracy", "points",
                   [fold.killed for fold in folds]),
            figure(case, "killed less undisturbed", "accuracy", "points", differences),
        ],
        (),
        [
            # The first kill of a job may have torn its first save.
            at_least("resumed", sum(life.resumed for life in lives), kills - len(folds), "lives"),
            at_most("lost beyond what it may", max(end.beyond for end in ends), 0, "rounds"),
            at_least("torn", sum(end.tore for end in ends), kills / 2, "saves"),
            at_most("accuracy", abs(statistics.mean(differences)), 0.5, "points"),
        ],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.kills < FOLDS or options.kills % FOLDS:
        parser.error(f"--kills {options.kills}: expected a multiple of {FOLDS}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    dice = random.Random(options.seed)
    report = report_of([measure(fold, options.kills // FOLDS, dice) for fold in range(FOLDS)])
    (publish if options.kills == KILLS else show)(report)
    sys.exit(not all(bar.holds for bar in report.bars))


if __name__ == "__main__":
    main()
