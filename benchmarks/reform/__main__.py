"""A worker dies: dssync beside torchrun. ``make bench-reform``; see ``docs/benchmarks.md``.

python -m benchmarks.reform [--quick]
"""

import argparse
import asyncio
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.publish import OUTPUT, machine, plot_distributions, publish, show, versions
from benchmarks.reform import overhead, pods
from benchmarks.reform.kills import Killed, kill_workers
from benchmarks.reform.torchrun_peer import one_kill, subjects
from benchmarks.results import (
    Bar,
    Figure,
    Ratio,
    Report,
    at_least,
    at_most,
    figure,
    paired_ratio,
    ratio,
    save,
)

WORKERS: Final = 8
GROUP: Final = 4
MEGABYTE: Final = 1 << 20
TUNED: Final = "torchrun, tuned"
REFORM: Final = "kill to re-formed"
ROUND: Final = "round, undisturbed"


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    megabytes: tuple[int, ...] = (1, 16)
    kills: int = 200
    peers: tuple[str, ...] = (TUNED, "torchrun, default")
    peer_kills: int = 3
    losses: int = 20
    drains: int = 30
    """Each is followed by a join, whose stall differs from the next one's by more than its bar."""
    pairs: int = 300


QUICK: Final = Effort((1,), 10, (TUNED,), 1, 3, 3, 60)


@dataclass
class Findings:
    """What the parts have found."""

    figures: list[Figure] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    reform: dict[int, list[float]] = field(default_factory=dict)
    """Seconds to re-formed, by megabytes."""
    retries_elsewhere: int = 0
    wrong_results: int = 0

    def seconds(self, case: str, subject: str, metric: str, samples: list[float]) -> None:
        """Add a distribution of times."""
        self.figures.append(figure(case, subject, metric, "ms", [1000 * each for each in samples]))


async def kills(found: Findings, effort: Effort, megabytes: int) -> None:
    """Kill workers under dssync."""
    case = _case(megabytes)
    ours = await kill_workers(megabytes * MEGABYTE, effort.kills)
    found.reform[megabytes] = ours.reform
    found.retries_elsewhere += ours.retries_elsewhere
    found.wrong_results += ours.wrong_results
    found.seconds(case, "dssync", REFORM, ours.reform)
    found.seconds(case, "dssync", ROUND, ours.rounds)
    found.seconds(case, "dssync", "round and 20 ms of work, undisturbed", ours.cycles)
    found.seconds(case, "dssync, restarted worker", "ready to first round", ours.joins)
    if megabytes == 1:
        found.bars += _reform_bars(ours)
    _join_bar(found, ours, f"join, restarted worker, {megabytes} MB", megabytes)


async def peers(found: Findings, effort: Effort, megabytes: int) -> None:
    """Kill workers under torchrun, and compare."""
    case, ours = _case(megabytes), found.reform[megabytes]
    times = {"dssync": ours}
    by_name = {subject.name: subject for subject in subjects(WORKERS)}
    for subject in (by_name[name] for name in effort.peers):
        peer = [await one_kill(subject, megabytes, WORKERS) for _ in range(effort.peer_kills)]
        times[subject.name] = peer
        found.seconds(case, subject.name, REFORM, peer)
        found.ratios.append(ratio(case, REFORM, (subject.name, peer), ("dssync", ours)))
    plot_distributions(_svg(f"reform-{megabytes}mb"), case, "seconds to re-formed", times)
    if megabytes == 1:
        value = median(times[TUNED]) / median(ours)
        found.bars.append(at_least("ratio_to_tuned_torchrun", value, 50, ""))


def _case(megabytes: int) -> str:
    return f"SIGKILL of 1 of {WORKERS}, {megabytes} MB"


def _reform_bars(ours: Killed) -> list[Bar]:
    times = figure("", "", "", "ms", [1000 * each for each in ours.reform])
    return [
        at_most("reform_p50", times.median, 100, "ms"),
        at_most("reform_p99", times.p99, 500, "ms"),
    ]


def _join_bar(found: Findings, ours: Killed | pods.Pods, name: str, megabytes: int) -> None:
    """Compare a join with what it may take: 300 ms, two rounds and the transfer."""
    transfer = megabytes * MEGABYTE / (0.7 * ours.socket_rate)
    allowed = 0.3 + 2 * median(ours.cycles) + transfer
    found.bars.append(at_most(name, median(ours.joins) / allowed, 1, "of what it may take"))


async def pod_events(found: Findings, effort: Effort) -> None:
    """Kill pods, drain pods, let pods join."""
    seen, case = pods.Pods(), f"{pods.PODS} pods of 2, 1 MB"
    await pods.lose_pods(seen, MEGABYTE, effort.losses)
    await pods.drain_pods(seen, MEGABYTE, effort.drains)
    found.retries_elsewhere += seen.retries_elsewhere
    found.wrong_results += seen.wrong_results
    found.seconds(case, "dssync", "SIGKILL of a pod to re-formed", seen.losses)
    found.seconds(case, "dssync", "SIGTERM of a pod to gone", seen.drains)
    found.seconds(case, "dssync", "worker ready to first round", seen.joins)
    found.figures.append(figure(case, "dssync", "others' stall in a join", "rounds", seen.stalls))
    beyond = 1000 * (median(seen.drains) - median(seen.cycles))
    found.bars += [
        at_most("pod_loss", 1000 * median(seen.losses), 300, "ms"),
        at_most("drain", beyond, 500, "ms beyond a round"),
        at_most("drain, batches lost or repeated", seen.batches_lost, 0, ""),
        at_most("join, others' stall", median(seen.stalls), 0.25, "rounds"),
    ]
    _join_bar(found, seen, "join", 1)


async def overheads(found: Findings, effort: Effort) -> None:
    """Measure rounds beside bare all-reduces."""
    limits = {1: 1.03, 16: 1.10}
    for megabytes in effort.megabytes:
        for workers in (GROUP, WORKERS):
            case = f"{workers} workers in groups of {GROUP}, {megabytes} MB"
            pairs = effort.pairs if megabytes == 1 else effort.pairs // 3
            seen = await overhead.measure(megabytes * MEGABYTE, pairs, workers)
            found.seconds(case, "dssync", "round", seen.rounds)
            found.seconds(case, "gloo", "bare all-reduce", seen.bare)
            both = ("dssync", seen.rounds), ("gloo", seen.bare)
            found.ratios.append(paired_ratio(case, "overhead_relaxed", *both))
            if workers == WORKERS:
                name = "overhead_relaxed" if megabytes == 1 else f"overhead_relaxed, {megabytes} MB"
                found.bars.append(at_most(name, found.ratios[-1].ratio, limits[megabytes], ""))


async def strict_overhead(found: Findings, effort: Effort) -> None:
    """Measure rounds with strict commits beside bare all-reduces."""
    case = f"{WORKERS} workers in groups of {GROUP}, 1 MB, strict commits"
    seen = await overhead.measure(MEGABYTE, effort.pairs, WORKERS, "strict")
    found.seconds(case, "dssync", "round", seen.rounds)
    found.seconds(case, "gloo", "bare all-reduce", seen.bare)
    both = ("dssync", seen.rounds), ("gloo", seen.bare)
    found.ratios.append(paired_ratio(case, "overhead_strict", *both))
    found.bars.append(at_most("overhead_strict", found.ratios[-1].ratio, 1.08, ""))


async def main(effort: Effort) -> None:
    found = Findings()
    parts = (
        *(partial(kills, megabytes=each) for each in effort.megabytes),
        pod_events,
        overheads,
        strict_overhead,
        *(partial(peers, megabytes=each) for each in effort.megabytes),
    )
    for part in parts:
        await part(found, effort)
        # A run that is cut short leaves that much behind.
        save(_report(found, effort), OUTPUT)
    (show if effort is QUICK else publish)(_report(found, effort))
    sys.exit(not all(bar.holds for bar in _report(found, effort).bars))


def _report(found: Findings, effort: Effort) -> Report:
    """Return what is known so far."""
    bars = (
        *found.bars,
        at_most("no_retry_elsewhere", found.retries_elsewhere, 0, "retries"),
        at_most("wrong results", found.wrong_results, 0, ""),
    )
    command = "python -m benchmarks.reform --quick" if effort is QUICK else "make bench-reform"
    parts = (found.figures, found.ratios, bars)
    return Report("reform", command, machine(), versions("torch"), *parts)


def _svg(name: str) -> Path:
    return OUTPUT / f"{name}.svg"


def parse_args() -> Effort:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repetitions, 1 MB only")
    return QUICK if parser.parse_args().quick else Effort()


if __name__ == "__main__":
    asyncio.run(main(parse_args()))
