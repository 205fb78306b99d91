"""Random walks against the real API server: any order of fates and faults converges."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from dssync_operator import errors
from ground.control_plane import ControlPlane
from ground.inprocess import Death, Harness, harness, lines_end
from ground.scene import Scene, condition_of, live, make_job, slot_of

MAX_REPLICAS = 4
FAULTS = st.one_of(
    st.tuples(st.just("die"), st.integers(0, 25), st.booleans()),
    st.tuples(st.just("fail"), st.integers(0, 25), st.sampled_from([409, 429, 500])),
    st.tuples(st.just("none"), st.just(0), st.just(0)),
)
RUNNING = ("Pending", "Running")
ENDS = [(0, "Done"), (0, "Drained"), (1, "UserError"), (137, None)]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("look"), FAULTS),
        st.tuples(st.sampled_from(["run", "delete", "remove"]), st.integers(0, 9)),
        st.tuples(st.just("end"), st.tuples(st.integers(0, 9), st.sampled_from(ENDS))),
        st.tuples(st.just("replicas"), st.integers(1, MAX_REPLICAS)),
        st.tuples(st.just("suspend"), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([15.0, 4000.0])),
    ),
    min_size=4,
    max_size=16,
)


class Walk:
    """One job, what was done to it, and what must hold of it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.scene = Scene(plane)
        self.later_seconds = 0.0
        self.failures = 0
        self.verdict: list[str] = []
        elastic = {"maxReplicas": MAX_REPLICAS, "stabilizationSeconds": 0}
        self.scene.create(make_job(replicas=2, elastic=elastic, failurePolicy={"backoffLimit": 3}))

    def wall(self) -> float:
        return time.time() + self.later_seconds

    async def take(self, operator: Harness, what: str, argument: Any) -> None:
        if what == "look":
            await self.look(operator, *argument)
        elif what == "wait":
            self.later_seconds += argument
        elif what in ("replicas", "suspend"):
            self.scene.patch("demo", {what: argument})
        else:
            self.disturb(what, argument)

    async def look(self, operator: Harness, fault: str, call: int, detail: Any) -> None:
        if fault == "die":
            operator.die_at(call, detail)
        elif fault == "fail":
            kind = errors.ConflictError if detail == 409 else errors.UnavailableError
            operator.fail_at(call, kind("made up", detail))
        try:
            await operator.reconciler.look((self.scene.namespace, "demo"))
        except (Death, errors.ApiError):
            operator.restart()
        operator.heal()

    def disturb(self, what: str, argument: Any) -> None:
        index, end = argument if what == "end" else (argument, None)
        pods = [pod for pod in self.scene.pods() if pod["status"]["phase"] in RUNNING]
        if not pods:
            return
        pod = pods[index % len(pods)]
        bound = bool(pod["spec"].get("nodeName"))
        if what == "run" and not bound and live([pod]):
            self.scene.kubelet.run(pod)
        elif what == "end":
            stamp = datetime.fromtimestamp(self.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            asked = "deletionTimestamp" in pod["metadata"]
            self.failures += not asked and end[1] not in ("Done", "Drained")
            self.scene.kubelet.end(pod, *end, finished_at=stamp)
        elif what == "delete":
            metadata = pod["metadata"]
            self.scene.plane.request("DELETE", f"{self.scene.path('pods')}/{metadata['name']}")
        elif what == "remove":
            self.scene.kubelet.remove(pod)

    def check(self) -> None:
        status, pods = self.scene.job().get("status", {}), live(self.scene.pods())
        assert len(pods) <= MAX_REPLICAS
        assert len({slot_of(pod) for pod in pods}) == len(pods)
        assert status.get("restarts", {}).get("total", 0) <= self.failures
        true = [
            kind
            for kind in ("Complete", "Failed")
            if condition_of(status, kind).get("status") == "True"
        ]
        assert len(true) <= 1
        assert true == self.verdict or not self.verdict
        self.verdict = true

    async def calm(self, operator: Harness) -> None:
        for _ in range(4):
            self.later_seconds += 4000.0
            await operator.reconciler.look((self.scene.namespace, "demo"))
            for pod in self.scene.pods():
                if "deletionTimestamp" in pod["metadata"]:
                    self.scene.kubelet.remove(pod)
        self.check()
        job, pods = self.scene.job(), live(self.scene.pods())
        status = job["status"]
        if self.verdict:
            assert pods == []
            return
        done = len(status.get("done", []))
        wanted = 0 if job["spec"]["suspend"] else max(0, job["spec"]["replicas"] - done)
        assert len(pods) == wanted
        assert status["replicas"] == wanted


@pytest.mark.timeout(240)
def test_any_walk_converges_and_the_status_never_lies(quiet_plane: ControlPlane) -> None:
    @settings(
        max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(STEPS)
    def walk(steps: list[tuple[str, Any]]) -> None:
        asyncio.run(one_walk(quiet_plane, steps))

    walk()


async def one_walk(plane: ControlPlane, steps: list[tuple[str, Any]]) -> None:
    walk = Walk(plane)
    async with harness(plane, walk.wall) as operator:
        for step in steps:
            await walk.take(operator, *step)
            walk.check()
        await walk.calm(operator)
    await lines_end()
