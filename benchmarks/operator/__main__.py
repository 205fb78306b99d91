"""What the operator costs and how fast it is, beside a bare client's ceiling and its peers.

    python -m benchmarks.operator                       all, about thirteen minutes
    python -m benchmarks.operator --part create         one part; its bars only
    python -m benchmarks.operator --short               a small form; bars mean little

Level 1: a real etcd and API server, no scheduler and no kubelet, so pods stay Pending.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from benchmarks.operator import cases, peers
from benchmarks.operator.ceiling import bare_aiohttp, official_client, pods_per_second
from benchmarks.operator.field import Operator, control_plane, operator, peak_mebibytes
from benchmarks.operator.peers import (
    ELASTIC,
    FIXED,
    RAISED,
    SHIPPED,
    UNLIMITED,
    Outcome,
    training_operator,
)
from benchmarks.publish import machine, publish, versions
from benchmarks.results import (
    Bar,
    Figure,
    Ratio,
    Report,
    at_least,
    at_most,
    figure,
    paired_ratio,
)
from ground.control_plane import ControlPlane


@dataclass(frozen=True)
class Scale:
    """How much of each case is run."""

    jobs: int = 100
    pods: int = 100
    many: tuple[int, int] = (1000, 10)
    giant: int = 2000
    idle_seconds: float = 60.0
    limited_pods: int = 300
    turns: int = 4


SHORT = Scale(20, 25, (50, 4), 200, 10.0, 50, 2)


@dataclass
class Results:
    """What was measured so far."""

    scale: Scale
    figures: list[Figure] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    rate: float | None = None

    def add(self, case: str, subject: str, metric: str, unit: str, *samples: float) -> None:
        """Keep a figure."""
        self.figures.append(figure(case, subject, metric, unit, samples))


@dataclass
class Creations:
    """Who made the pods of A1 how fast, turn by turn."""

    bare: list[float] = field(default_factory=list)
    official: list[float] = field(default_factory=list)
    made: list[cases.Created] = field(default_factory=list)
    raised: dict[str, list[Outcome]] = field(default_factory=lambda: defaultdict(list))


def create(results: Results) -> None:
    """A1: many large jobs, in turn with bare clients and PyTorchJobs, each on a fresh ground.

    Every other turn goes backwards, since the machine may slow down in the course of each.
    """
    found = Creations()
    for turn in range(results.scale.turns):
        elastic, fixed = (partial(measure_raised, name) for name in (ELASTIC, FIXED))
        steps = [measure_bare, measure_ours, elastic, measure_official, fixed]
        for measure in steps if turn % 2 == 0 else reversed(steps):
            measure(results, found)
    compare_with_ceiling(results, found)
    if found.raised:
        compare_with_peer(results, found)


def measure_bare(results: Results, found: Creations) -> None:
    """The operator's pods from a bare client."""
    found.bare.append(pods_per_second(bare_aiohttp, results.scale.jobs * results.scale.pods))


def measure_official(results: Results, found: Creations) -> None:
    """The operator's pods from the official client; fewer of them, for it is slow."""
    total = results.scale.jobs * results.scale.pods
    found.official.append(pods_per_second(official_client, total // 4))


def measure_ours(results: Results, found: Creations) -> None:
    """The operator; what else is measured beside many pods is measured at the first of them."""
    with control_plane() as plane, operator(plane) as process:
        found.made.append(cases.create(plane, process, results.scale.jobs, results.scale.pods))
        if len(found.made) == 1:
            beside(results, plane, process)


def measure_raised(subject: str, results: Results, found: Creations) -> None:
    """One form of PyTorchJobs, where the training-operator can be had."""
    load = (results.scale.jobs, results.scale.pods)
    peer = training_operator(subject, load, UNLIMITED, RAISED[subject])
    if peer is not None:
        found.raised[subject].append(peer)


def compare_with_ceiling(results: Results, found: Creations) -> None:
    """A1 beside the faster bare client of each turn."""
    rates = [each.pods_per_second for each in found.made]
    ceiling = [max(pair) for pair in zip(found.bare, found.official, strict=True)]
    results.rate = median(rates)
    results.add("A1", "bare aiohttp", "pods", "1/s", *found.bare)
    results.add("A1", "official client", "pods", "1/s", *found.official)
    results.add("A1", "dssync", "pods", "1/s", *rates)
    cpu = [each.cpu_per_10000 for each in found.made]
    results.add("A1", "dssync", "processor time", "s per 10,000 pods", *cpu)
    writes = [each.writes_per_pod for each in found.made]
    results.add("A1", "dssync", "writes", "per pod", *writes)
    compared = paired_ratio("A1", "pods/s", ("dssync", rates), ("faster bare client", ceiling))
    results.ratios.append(compared)
    results.bars += [
        at_least("A1_pods_per_second", compared.ratio, 0.75, "of the ceiling"),
        at_most("A1_cpu_seconds", median(cpu), 8.0, "s per 10,000 pods"),
        at_most("A1_writes_per_pod", median(writes), 1.05, ""),
    ]


def compare_with_peer(results: Results, found: Creations) -> None:
    """A1 beside both forms of PyTorchJob; the bar is on the one of fixed size, like our jobs."""
    rates = [each.pods_per_second for each in found.made]
    for subject in RAISED:
        peer = found.raised[subject]
        add_outcomes(results, peer)
        theirs = [each.pods_per_second for each in peer]
        beside_peer = paired_ratio("A1", "pods/s", ("dssync", rates), (subject, theirs))
        results.ratios.append(beside_peer)
    compared = next(each for each in results.ratios if each.peer == FIXED)
    bar = at_least("A1_beside_limits_raised", compared.ratio, 2.0, "of PyTorchJobs with a master")
    results.bars.append(bar)


def add_outcomes(results: Results, turns: list[Outcome]) -> None:
    """Keep what a peer needed, once or in several turns."""
    subject = turns[0].subject
    results.add("A1", subject, "pods", "1/s", *(each.pods_per_second for each in turns))
    cpu = [each.cpu_per_10000 for each in turns]
    results.add("A1", subject, "processor time", "s per 10,000 pods", *cpu)
    results.add("A1", subject, "writes", "per pod", *(each.writes_per_pod for each in turns))
    results.add("A1", subject, "peak memory", "MiB", *(each.mebibytes for each in turns))


def beside(results: Results, plane: ControlPlane, process: Operator) -> None:
    """A3, B1 and a job with a Lease, beside the many pods of A1."""
    replaced = [cases.replace_most(plane, process, f"b1-{turn}") for turn in range(5)]
    for name, seconds in cases.resize(plane).items():
        results.add("A3", "dssync", name, "s", seconds)
    leased = cases.create(plane, process, 1, results.scale.pods, static=False)
    results.add("A1, rendezvous Lease", "dssync", "writes", "per pod", leased.writes_per_pod)
    results.add("A1", "dssync", "peak memory", "MiB", peak_mebibytes(process.pid))
    results.add("B1", "dssync", f"replace {cases.REPLACED} of {cases.SIZE}", "s", *replaced)
    results.bars.append(at_most("B1_replace_30_of_32", median(replaced), 0.5, "s"))


def many(results: Results) -> None:
    """A2, C1 and C3: many small jobs, at rest and through a restart."""
    jobs, pods = results.scale.many
    case = f"A2, {jobs} x {pods}"
    with control_plane() as plane, operator(plane) as process:
        made = cases.create(plane, process, jobs, pods)
        idle, cpu = cases.idle(plane, process, results.scale.idle_seconds)
        peak = peak_mebibytes(process.pid)
        restarted = cases.restart_writes(plane, process)
    results.add(case, "dssync", "pods", "1/s", made.pods_per_second)
    results.add(case, "dssync", "writes", "per pod", made.writes_per_pod)
    results.add(case, "dssync", "processor time", "s per 10,000 pods", made.cpu_per_10000)
    results.add(case, "dssync", "peak memory", "MiB", peak)
    results.add("C3", "dssync", f"idle {results.scale.idle_seconds:g} s", "processor s", cpu)
    results.bars += [
        at_most("C1_restart_writes", restarted, 0, ""),
        at_most("C3_idle_writes", idle, 0, ""),
        at_most("rss_1000_jobs", peak, 160, "MiB"),
    ]


def giant(results: Results) -> None:
    """A4: small jobs, alone and beside a giant in the making."""
    alone, beside = cases.giant(100, results.scale.giant, pairs=3)
    results.add("A4", "dssync, alone", "last of 100 small jobs", "s", *alone)
    results.add("A4", "dssync, beside a giant", "last of 100 small jobs", "s", *beside)
    slowdown = median(late / early for early, late in zip(alone, beside, strict=True))
    results.bars.append(at_most("A4_small_jobs_beside_giant", slowdown, 2.0, "of alone"))


def others(results: Results) -> None:
    """A1 on the peers."""
    scale = results.scale
    for peer in peers.measure(scale.jobs, scale.pods, scale.limited_pods):
        add_outcomes(results, [peer])
        if peer.subject == SHIPPED and results.rate is not None:
            ratio = results.rate / peer.pods_per_second
            bar = at_least("A1_beside_as_shipped", ratio, 5.0, "of the training-operator")
            results.bars.append(bar)


PARTS: dict[str, Callable[[Results], None]] = {
    "create": create,
    "many": many,
    "giant": giant,
    "peers": others,
}


def main() -> int:
    """Run the parts; return 1 when a bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a small form; bars mean little")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; repeatable")
    arguments = parser.parse_args()
    results = Results(SHORT if arguments.short else Scale())
    for name in arguments.part or PARTS:
        print(f"operator: {name}", flush=True)
        PARTS[name](results)
    report = Report(
        "operator",
        "make bench-operator",
        machine(),
        versions("kopf", "aiohttp", "kubernetes"),
        results.figures,
        results.ratios,
        results.bars,
    )
    if arguments.part or arguments.short:
        for one in results.figures:
            print(f"{one.case:24} {one.subject:34} {one.metric:24} {one.median:.4g} {one.unit}")
    else:
        publish(report)
    for bar in results.bars:
        print(f"{'holds' if bar.holds else 'FAILS':6} {bar.name}: {bar.value:.3g} ({bar.bar})")
    return 0 if all(bar.holds for bar in results.bars) else 1


if __name__ == "__main__":
    raise SystemExit(main())
