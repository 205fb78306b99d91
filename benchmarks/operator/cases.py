"""The cases, each a function that measures one thing on a control plane that it is given."""

import time
from dataclasses import dataclass
from urllib.parse import quote

from benchmarks.operator.field import (
    Operator,
    await_pods,
    control_plane,
    count,
    cpu_seconds,
    operator,
    submit,
    wait_until,
    writes,
)
from ground.control_plane import ControlPlane
from ground.kubelet import MERGE
from ground.scene import JOBS, make_job

REPLACED, SIZE = 30, 32
Pods = list[dict[str, dict[str, dict[str, str]]]]


@dataclass(frozen=True)
class Created:
    """What the making of many pods took."""

    pods_per_second: float
    cpu_seconds: float
    writes_per_pod: float
    pods: int

    @property
    def cpu_per_10000(self) -> float:
        """Processor seconds for ten thousand pods."""
        return self.cpu_seconds * 10_000 / self.pods


def create(
    plane: ControlPlane, process: Operator, jobs: int, pods: int, static: bool = True
) -> Created:
    """Submit many jobs at once and wait for all of their pods."""
    total = jobs * pods
    rest(plane)
    there = count(plane)
    cpu, before, begin = cpu_seconds(process.pid), writes(plane), time.perf_counter()
    for number in range(jobs):
        submit(plane, "default", f"a{pods}{'s' if static else 'l'}-{number}", pods, static)
    # As for its peers; to tell its own metrics took 7 % of its processor time.
    await_pods(plane, there + total)
    seconds = time.perf_counter() - begin
    rest(plane)
    made = writes(plane) - before - jobs
    return Created(total / seconds, cpu_seconds(process.pid) - cpu, made / total, total)


def rest(plane: ControlPlane) -> None:
    """Wait until nothing has been written for a while."""
    seen = -1.0
    while (now := writes(plane)) != seen:
        seen = now
        time.sleep(2.0)


def replace_most(plane: ControlPlane, process: Operator, name: str) -> float:
    """B1: delete 30 of 32 pods; return the seconds until all are there again."""
    submit(plane, "default", name, SIZE, static=True)
    path = "/api/v1/namespaces/default/pods"
    query = f"{path}?labelSelector=dssync.io/job-name={name}"
    plane.until(query, lambda pods: len(pods) == SIZE)
    rest(plane)
    before = process.pods_created()
    for slot in range(REPLACED):
        plane.request("DELETE", f"{path}/{name}-w{slot}-0")
    # Deleting them one by one takes longer than replacing them: the last of them counts.
    begin = time.perf_counter()
    wait_until(lambda: process.pods_created() >= before + REPLACED, every_seconds=0.01)
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
    for name, (change, wanted) in steps.items():
        begin = time.perf_counter()
        plane.request("PATCH", f"{path}/a3", {"spec": change}, content_type=MERGE)
        plane.until(query, lambda pods, wanted=wanted: len(pods) == wanted)
        seconds[name] = time.perf_counter() - begin
    return seconds


def idle(plane: ControlPlane, process: Operator, seconds: float) -> tuple[float, float]:
    """C3: writes in a time in which nothing happens, and the operator's processor seconds."""
    rest(plane)
    before, cpu = writes(plane), cpu_seconds(process.pid)
    time.sleep(seconds)
    return writes(plane) - before, cpu_seconds(process.pid) - cpu


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


def giant(jobs: int, size: int, pairs: int) -> tuple[list[float], list[float]]:
    """A4: seconds until the last of some small jobs has its pods, without and with a giant.

    Both are measured in turn, since one of them alone shows mostly what else the machine does.
    """
    alone, beside = [], []
    with control_plane() as plane, operator(plane) as process:
        for pair in range(pairs):
            alone.append(small_jobs(plane, f"alone{pair}", jobs))
            rest(plane)
            submit(plane, "default", f"giant-{pair}", size, static=True)
            before = process.pods_created()
            wait_until(lambda before=before: process.pods_created() > before, every_seconds=0.01)
            beside.append(small_jobs(plane, f"beside{pair}", jobs))
            wait_until(lambda before=before: process.pods_created() >= before + size)
            rest(plane)
    return alone, beside


def small_jobs(plane: ControlPlane, group: str, jobs: int) -> float:
    """Create small jobs; return how long after the first of them the last was served."""
    begin = time.perf_counter()
    names = [f"{group}-{number}" for number in range(jobs)]
    for name in names:
        submit(plane, "default", name, 2, static=True)
    chosen = quote(f"dssync.io/job-name in ({','.join(names)})")
    query = f"/api/v1/namespaces/default/pods?labelSelector={chosen}"
    plane.until(query, lambda pods: len(pods) == 2 * jobs, seconds=120)
    return time.perf_counter() - begin
