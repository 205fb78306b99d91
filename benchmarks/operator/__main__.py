"""What the operator costs and how fast it is, beside the ceiling of a bare client.

    python -m benchmarks.operator            100 jobs x 100 pods
    python -m benchmarks.operator --short    20 jobs x 25 pods, to see that it works

Level 1: a real etcd and API server, no scheduler and no kubelet, so pods stay Pending. The peers
(the Job controller, the training-operator, a timer per object) are not measured here yet, nor is
the case A2.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from benchmarks.operator.ceiling import pods_per_second
from benchmarks.operator.field import (
    Operator,
    control_plane,
    operator,
    submit,
    wait_until,
    writes,
)
from benchmarks.publish import machine, publish, versions
from benchmarks.results import Bar, Figure, Report, at_least, at_most, figure, save
from ground.control_plane import ControlPlane
from ground.kubelet import MERGE
from ground.scene import JOBS, make_job

OUTPUT = Path("build/bench")
REPLACED, SIZE = 30, 32


@dataclass(frozen=True)
class Scale:
    """How much of each case is run."""

    jobs: int
    pods: int
    giant: int
    idle_seconds: float


FULL, SHORT = Scale(100, 100, 2000, 60.0), Scale(20, 25, 200, 10.0)


def main() -> int:
    """Run all cases; return 1 when a bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a small form; bars mean little")
    scale = SHORT if parser.parse_args().short else FULL
    figures, bars = measure(scale)
    report = Report(
        "operator",
        "make bench-operator",
        machine(),
        versions("kopf", "aiohttp"),
        figures,
        (),
        bars,
    )
    save(report, OUTPUT)
    publish(report)
    for bar in bars:
        print(f"{'holds' if bar.holds else 'FAILS':6} {bar.name}: {bar.value:.3g} ({bar.bar})")
    return 0 if all(bar.holds for bar in bars) else 1


def measure(scale: Scale) -> tuple[list[Figure], list[Bar]]:
    """Run the cases on as few control planes as keep them apart."""
    total = scale.jobs * scale.pods
    ceiling = pods_per_second(total)
    with control_plane() as plane, operator(plane) as process:
        rate, cpu, per_pod = create(plane, process, scale)
        replacement = replace_most(plane, process)
        resizes = resize(plane)
        idle = idle_writes(plane, scale.idle_seconds)
        peak = process.peak_mebibytes()
        restarted = restart_writes(plane, process)
    alone, beside = giant(scale)
    figures = [
        figure("A1", "bare aiohttp", "pods", "1/s", [ceiling]),
        figure("A1", "dssync", "pods", "1/s", [rate]),
        figure("A1", "dssync", "processor time", "s per 10,000 pods", [cpu * 10_000 / total]),
        figure("A1", "dssync", "writes", "per pod", [per_pod]),
        *(figure("A3", "dssync", name, "s", [value]) for name, value in resizes.items()),
        figure("A4", "alone", "time of a small job", "s", alone),
        figure("A4", "beside a giant", "time of a small job", "s", beside),
        figure("B1", "dssync", f"replace {REPLACED} of {SIZE}", "s", [replacement]),
        figure("C3", "dssync", "peak memory", "MiB", [peak]),
    ]
    bars = [
        at_least("A1_pods_per_second", rate / ceiling, 0.75, "of the ceiling"),
        at_most("A1_cpu_seconds", cpu * 10_000 / total, 8.0, "s per 10,000 pods"),
        at_most("A1_writes_per_pod", per_pod, 1.05, ""),
        at_most("A4_small_jobs_beside_giant", max(beside) / max(alone), 2.0, "of alone"),
        at_most("B1_replace_30_of_32", replacement, 0.5, "s"),
        at_most("C1_restart_writes", restarted, 0, ""),
        at_most("C3_idle_writes", idle, 0, ""),
        at_most("rss_1000_jobs", peak, 160, "MiB"),
    ]
    return figures, bars


def create(plane: ControlPlane, process: Operator, scale: Scale) -> tuple[float, float, float]:
    """A1: many jobs at once. Return pods a second, processor seconds and writes per pod."""
    total = scale.jobs * scale.pods
    rest(plane)
    made_before = process.pods_created()
    cpu, before, begin = process.cpu_seconds(), writes(plane), time.perf_counter()
    for number in range(scale.jobs):
        submit(plane, "default", f"a1-{number}", scale.pods, static=True)
    wait_until(lambda: process.pods_created() >= made_before + total)
    seconds = time.perf_counter() - begin
    rest(plane)
    made = writes(plane) - before - scale.jobs
    return total / seconds, process.cpu_seconds() - cpu, made / total


def rest(plane: ControlPlane) -> None:
    """Wait until nothing has been written for a while."""
    seen = -1.0
    while (now := writes(plane)) != seen:
        seen = now
        time.sleep(2.0)


def replace_most(plane: ControlPlane, process: Operator) -> float:
    """B1: delete 30 of 32 pods; return the seconds until all are there again."""
    submit(plane, "default", "b1", SIZE, static=True)
    path = "/api/v1/namespaces/default/pods"
    query = f"{path}?labelSelector=dssync.io/job-name=b1"
    plane.until(query, lambda pods: len(pods) == SIZE)
    rest(plane)
    before = process.pods_created()
    for slot in range(REPLACED):
        plane.request("DELETE", f"{path}/b1-w{slot}-0")
    # Deleting them one by one takes longer than replacing them: the last of them counts.
    begin = time.perf_counter()
    wait_until(lambda: process.pods_created() >= before + REPLACED)
    plane.until(query, lambda pods: len(pods) == SIZE)
    return time.perf_counter() - begin


def resize(plane: ControlPlane) -> dict[str, float]:
    """A3: one job from nothing to 100 pods, from 10 to 100 and back; seconds until it is so."""
    elastic = {"maxReplicas": 100, "stabilizationSeconds": 0}
    job = make_job("a3", replicas=100, elastic=elastic, suspend=True)
    path = f"{JOBS}/namespaces/default/dssyncjobs"
    plane.request("POST", path, job)
    steps = {
        "suspended to 100": ({"suspend": False}, 100),
        "100 to 10": ({"replicas": 10}, 10),
        "10 to 100": ({"replicas": 100}, 100),
    }
    query = "/api/v1/namespaces/default/pods?labelSelector=dssync.io/job-name=a3"
    seconds = {}
    for name, (change, count) in steps.items():
        begin = time.perf_counter()
        plane.request("PATCH", f"{path}/a3", {"spec": change}, content_type=MERGE)
        plane.until(query, lambda pods, count=count: len(pods) == count)
        seconds[name] = time.perf_counter() - begin
    return seconds


def idle_writes(plane: ControlPlane, seconds: float) -> float:
    """C3: writes in a time in which nothing happens."""
    rest(plane)
    before = writes(plane)
    time.sleep(seconds)
    return writes(plane) - before


def restart_writes(plane: ControlPlane, process: Operator) -> float:
    """C1: writes of a new operator that finds everything as it should be."""
    process.process.stop()
    _, jobs = plane.request("GET", "/apis/dssync.io/v1alpha1/dssyncjobs")
    before = writes(plane)
    with operator(plane, warm=False) as fresh:
        looks = "dssync_operator_reconcile_seconds_count"
        wait_until(lambda: fresh.series(looks) >= len(jobs["items"]))
        rest(plane)
        return writes(plane) - before


def giant(scale: Scale) -> tuple[list[float], list[float]]:
    """A4: seconds until small jobs have their pods, without and with a giant beside them."""
    times = []
    for with_giant in (False, True):
        with control_plane() as plane, operator(plane):
            if with_giant:
                submit(plane, "default", "giant", scale.giant, static=True)
            times.append(small_jobs(plane, scale.jobs))
    return times[0], times[1]


def small_jobs(plane: ControlPlane, count: int) -> list[float]:
    """Create small jobs and return how long after the first of them each was served."""
    begin = time.perf_counter()
    for number in range(count):
        submit(plane, "default", f"small-{number}", 2, static=True)
    served: dict[str, float] = {}
    selector = quote("dssync.io/job-name,dssync.io/job-name notin (giant,warm)")
    query = f"/api/v1/namespaces/default/pods?labelSelector={selector}"

    def all_served(pods: list[dict[str, dict[str, dict[str, str]]]]) -> bool:
        names = [pod["metadata"]["labels"]["dssync.io/job-name"] for pod in pods]
        for name in set(names):
            if names.count(name) == 2:
                served.setdefault(name, time.perf_counter() - begin)
        return len(served) == count

    plane.until(query, all_served, seconds=120)
    return sorted(served.values())


if __name__ == "__main__":
    raise SystemExit(main())
