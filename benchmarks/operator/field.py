"""The ground of a measurement: a fresh control plane, an operator process, and what they cost."""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ground.control_plane import ControlPlane
from ground.process import OperatorProcess
from ground.scene import JOBS, make_job

CRD: Final = Path(__file__).parents[2] / "crds" / "dssyncjob.yaml"
PATIENCE_SECONDS: Final = 600.0
LOOK_SECONDS: Final = 0.2
LAST_LOOKS_SECONDS: Final = 0.01
NEARLY: Final = 0.98
"""Part of a load up to which it is looked at seldom: each look costs the API server a millisecond,
and the bare client is not looked at."""
WRITES: Final = re.compile(
    r'^apiserver_request_total\{code="2..",[^}]*dry_run="",[^}]*,resource="([^"]*)",'
    r'[^}]*verb="(APPLY|DELETE|PATCH|POST|PUT)",[^}]*\} (\S+)$',
    re.M,
)


@contextmanager
def control_plane(**options: Any) -> Iterator[ControlPlane]:
    """A fresh control plane that knows DSSyncJobs."""
    # Neither the operator nor its peers are to be measured with the accounts of their pods.
    plane = ControlPlane(accounts=False, **options)
    try:
        plane.start()
        plane.define(CRD)
        yield plane
    finally:
        plane.stop()


@contextmanager
def operator(plane: ControlPlane, warm: bool = True) -> Iterator["Operator"]:
    """An operator without limits of its own, so that what is measured is its speed.

    Warm, it has seen a first job, so that the start of its watches is not part of the measurement.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with OperatorProcess(plane.kubeconfig, log, qps=100000, burst=100000) as process:
            found = Operator(process)
            wait_until(lambda: found.series("dssync_operator_leader") == 1.0)
            if warm:
                submit(plane, "default", "warm", 1, static=True)
                wait_until(lambda: found.pods_created() == 1)
            yield found


@dataclass(frozen=True)
class Operator:
    """A running operator, seen from outside."""

    process: OperatorProcess

    def series(self, name: str) -> float:
        """Sum of a series that it exports."""
        said = self.process.get("/metrics")[1]
        values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", said, re.M)
        return sum(map(float, values))

    def pods_created(self) -> int:
        """Pods that it has made."""
        return int(self.series("dssync_operator_pod_create_seconds_count"))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.process.pid


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mebibytes(pid: int) -> float:
    """Largest resident size of a process so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def count(plane: ControlPlane) -> int:
    """Pods that exist, without reading them."""
    found = plane.request("GET", "/api/v1/pods?limit=1")[1]
    return len(found["items"]) + int(found["metadata"].get("remainingItemCount", 0))


def await_pods(plane: ControlPlane, total: int) -> None:
    """Wait until so many pods exist, and know it within some milliseconds."""
    wait_until(lambda: count(plane) >= total * NEARLY, every_seconds=LOOK_SECONDS)
    wait_until(lambda: count(plane) >= total, every_seconds=LAST_LOOKS_SECONDS)


def writes(plane: ControlPlane) -> float:
    """Successful writes that the API server has counted, without renewals of leaders' Leases."""
    path = plane.folder / "metrics"
    path.write_text(plane.kubectl("get", "--raw", "/metrics"))
    found = WRITES.findall(path.read_text())
    return sum(
        float(count)
        for resource, verb, count in found
        if not (resource == "leases" and verb == "PUT")
    )


def submit(plane: ControlPlane, namespace: str, name: str, replicas: int, static: bool) -> None:
    """Create one job."""
    mode = {"rendezvous": {"mode": "Static"}} if static else {}
    path = f"{JOBS}/namespaces/{namespace}/dssyncjobs"
    code, said = plane.request("POST", path, make_job(name, replicas=replicas, **mode))
    if code != 201:
        raise RuntimeError(f"job {name} was refused: {said}")


def wait_until(
    holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS, every_seconds: float = 0.05
) -> float:
    """Look until something holds, not so often that the looks cost the operator much."""
    begin = time.perf_counter()
    while not holds():
        if time.perf_counter() - begin > seconds:
            raise TimeoutError(f"it did not come to hold within {seconds:g} s")
        time.sleep(every_seconds)
    return time.perf_counter() - begin
