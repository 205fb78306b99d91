"""``make bench-accuracy``: the mean model after grid rounds beside the one after allreduce.

Digits holds out another fifth of the data for each seed; charlm keeps its held-out tenth and
changes the seed. Everything but the mode is the same in a pair, so differences are paired.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Final

from benchmarks.publish import machine, publish, versions
from benchmarks.results import Bar, Figure, Report, at_most, figure

ROOT: Final = Path(__file__).parents[2]
MODES: Final = ("grid", "allreduce")
COMMAND: Final = "make bench-accuracy"


@dataclass(frozen=True)
class Case:
    """One example and how a seed is given to it."""

    name: str
    script: str
    metric: str
    unit: str
    arguments: tuple[str, ...]
    workers: int
    group_size: int


CASES: Final = (
    Case("digits", "examples/digits/train.py", "accuracy", "1", ("--epochs", "30"), 6, 3),
    Case("charlm", "examples/charlm/train.py", "loss", "nats", (), 4, 2),
)


def train(case: Case, mode: str, seed: int) -> float:
    """Train once and return the metric of the mean model."""
    fold = ("--fold", str(seed)) if case.name == "digits" else ()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        subprocess.run(
            [
                *(sys.executable, "-m", "dssync.cli", "run", "--standalone", "--mode", mode),
                *("--nproc-per-node", str(case.workers), "--group-size", str(case.group_size)),
                *("--seed", str(seed), str(ROOT / case.script), *case.arguments),
                *("--seed", str(seed), *fold, "--out", str(out)),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        return float(json.loads(out.read_text())[case.metric])


def measure(case: Case, seeds: int) -> tuple[list[Figure], Bar]:
    """Train all pairs of one example."""
    values: dict[str, list[float]] = {mode: [] for mode in MODES}
    for seed in range(seeds):
        for mode in MODES:
            values[mode].append(train(case, mode, seed))
            print(f"{case.name} seed {seed} {mode}: {values[mode][-1]:.4f}", flush=True)
    figures = [
        figure(f"{case.name}, {case.workers} workers", mode, case.metric, case.unit, values[mode])
        for mode in MODES
    ]
    ours, theirs = values["grid"], values["allreduce"]
    if case.metric == "accuracy":
        lost = mean(b - a for a, b in zip(ours, theirs, strict=True)) * 100
        return figures, at_most("accuracy_digits", abs(lost), 0.5, "points")
    excess = mean(a / b - 1 for a, b in zip(ours, theirs, strict=True)) * 100
    return figures, at_most("loss_charlm", excess, 1.0, "%")


def main() -> None:
    """Run, print the table, write build/bench/accuracy.json and docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    found = [measure(case, seeds) for case in CASES]
    publish(
        Report(
            name="accuracy",
            command=COMMAND,
            machine=machine(),
            versions=versions("torch"),
            figures=[each for figures, _ in found for each in figures],
            bars=[bar for _, bar in found],
        )
    )


if __name__ == "__main__":
    main()
