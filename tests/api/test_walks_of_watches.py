"""Random walks of a running operator whose line is cut and stalled: it converges all the same.

Ten jobs walk at a time, so that ten examples are a hundred walks.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from dssync_operator.cluster import REQUEST_SECONDS
from dssync_operator.queue import MAX_DELAY_SECONDS
from ground.control_plane import ControlPlane, Manifest
from ground.kubelet import PodGoneError
from ground.process import OperatorProcess
from ground.proxy import Proxy
from ground.scene import Scene, condition_of, live, make_job, slot_of

JOBS, MAX_REPLICAS, EXAMPLES = 10, 3, 10
RESYNC_SECONDS = 2
CALM_SECONDS = REQUEST_SECONDS + MAX_DELAY_SECONDS + RESYNC_SECONDS
"""The worst of the operator's own numbers: a request that was lost, and the longest back-off."""
LINE = st.tuples(st.sampled_from(["cut", "stall", "restore"]), st.none())
FATES = st.one_of(
    st.tuples(st.sampled_from(["run", "delete", "remove", "done", "fail"]), st.integers(0, 9)),
    st.tuples(st.just("replicas"), st.integers(1, MAX_REPLICAS)),
    st.tuples(st.just("suspend"), st.booleans()),
)
STEPS = st.lists(
    st.one_of(LINE, st.tuples(st.integers(0, JOBS - 1), FATES)), min_size=20, max_size=40
)


@dataclass
class Fleet:
    """Jobs that walk together behind one line."""

    scene: Scene
    proxy: Proxy
    prefix: str

    def __post_init__(self) -> None:
        """Create the jobs."""
        self.failures = dict.fromkeys(self.names, 0)
        for name in self.names:
            elastic = {"maxReplicas": MAX_REPLICAS, "stabilizationSeconds": 0}
            self.scene.create(make_job(name, replicas=2, elastic=elastic))

    @property
    def names(self) -> list[str]:
        return [f"{self.prefix}{number}" for number in range(JOBS)]

    def take(self, who: Any, what: Any) -> None:
        """One step: of the line, or of one job."""
        if isinstance(who, str):
            return getattr(self.proxy, who)()
        name, (kind, argument) = self.names[who], what
        if kind in ("replicas", "suspend"):
            self.scene.patch(name, {kind: argument})
        else:
            with contextlib.suppress(PodGoneError):  # the operator was faster
                self.disturb(name, kind, argument)

    def disturb(self, name: str, kind: str, index: int) -> None:
        pods = live(self.pods().get(name, []))
        if not pods:
            return
        pod = pods[index % len(pods)]
        if kind == "run" and not pod["spec"].get("nodeName"):
            self.scene.kubelet.run(pod)
        elif kind == "done":
            self.scene.kubelet.end(pod)
        elif kind == "fail" and not self.failures[name]:
            # One, since the second of a slot would have to wait for its back-off.
            self.failures[name] += 1
            self.scene.kubelet.end(pod, 1, "UserError")
        elif kind == "delete":
            path = f"{self.scene.path('pods')}/{pod['metadata']['name']}"
            self.scene.plane.request("DELETE", path)
        elif kind == "remove":
            self.scene.kubelet.remove(pod)

    def pods(self) -> dict[str, list[Manifest]]:
        found: dict[str, list[Manifest]] = {}
        for pod in self.scene.pods():
            found.setdefault(pod["metadata"]["labels"]["dssync.io/job-name"], []).append(pod)
        return found

    def check(self) -> bool:
        """Assert what must hold at any time; tell whether all jobs are as they should be."""
        pods, settled = self.pods(), True
        _, found = self.scene.plane.request("GET", self.scene.jobs)
        for job in found["items"]:
            name, status = job["metadata"]["name"], job.get("status", {})
            if name in self.failures:
                settled &= self.check_one(job, status, live(pods.get(name, [])))
        return settled

    def check_one(self, job: Manifest, status: Manifest, pods: list[Manifest]) -> bool:
        name = job["metadata"]["name"]
        assert len({slot_of(pod) for pod in pods}) == len(pods) <= MAX_REPLICAS
        assert status.get("restarts", {}).get("total", 0) <= self.failures[name]
        over = condition_of(status, "Complete").get("status") == "True"
        assert condition_of(status, "Failed") == {}
        done = len(status.get("done", []))
        wanted = 0 if over or job["spec"]["suspend"] else max(0, job["spec"]["replicas"] - done)
        return len(pods) == wanted == status.get("replicas")

    def calm(self) -> None:
        """Give the line back and wait until all is as it should be."""
        self.proxy.restore()
        plane, jobs = self.scene.plane, self.scene.jobs
        # A pod that goes need not change its job, so each second is worth a look as well.
        plane.until(jobs, lambda _: self.settled(), CALM_SECONDS, every_seconds=1.0)

    def settled(self) -> bool:
        """Take away what is to go; tell whether all is as it should be."""
        for pod in self.scene.pods():
            if "deletionTimestamp" in pod["metadata"]:
                self.scene.kubelet.remove(pod)
        return self.check()


@pytest.fixture
def line(quiet_plane: ControlPlane) -> Iterator[Proxy]:
    """A way to the API server that can be cut and stalled."""
    proxy = Proxy(quiet_plane.port)
    yield proxy
    proxy.close()


@pytest.mark.timeout(300)
def test_jobs_converge_whatever_their_watches_go_through(
    quiet_plane: ControlPlane, line: Proxy, tmp_path: Path
) -> None:
    scene = Scene(quiet_plane)
    kubeconfig = quiet_plane.kubeconfig_of("admin", line.url)
    fleets = iter("abcdefghijklmnopqrstuvwxyz")

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(STEPS)
    def walk(steps: list[tuple[Any, Any]]) -> None:
        fleet = Fleet(scene, line, next(fleets))
        for who, what in steps:
            fleet.take(who, what)
            fleet.check()
        fleet.calm()
        for name in fleet.names:
            scene.delete_job(name)

    own = {"namespaces": scene.namespace, "lease_name": scene.namespace, "lease_seconds": 120}
    own |= {"resync_seconds": RESYNC_SECONDS}
    with OperatorProcess(kubeconfig, tmp_path / "log", **own) as operator:
        walk()
        assert operator.process.poll() is None
