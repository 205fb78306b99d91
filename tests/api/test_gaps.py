"""Watches that break, go silent or come back without their history."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from dssync_operator.cluster import Cluster, connect, find_credentials
from dssync_operator.metrics import Metrics
from dssync_operator.operate import Operation
from dssync_operator.paths import jobs_path
from dssync_operator.settings import Settings
from ground import build
from ground.control_plane import ControlPlane
from ground.inprocess import DeafCluster
from ground.process import OperatorProcess
from ground.proxy import Proxy
from ground.scene import Scene, make_job

NO_IMAGE = {"spec": {"containers": [{"name": "worker", "image": ""}]}}
INVALID = ("dssync_operator_jobs", {"state": "Invalid"})
CRD = Path(__file__).parents[2] / "crds" / "dssyncjob.yaml"
pytestmark = pytest.mark.usefixtures("quiet_lines")


@asynccontextmanager
async def runs(operation: Operation) -> AsyncIterator[None]:
    """Let an operation run within the block."""
    running = asyncio.create_task(operation.run(lambda: None))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def line(quiet_plane: ControlPlane) -> Iterator[Proxy]:
    """A line to the control plane that can be stalled."""
    with closing(Proxy(quiet_plane.port)) as made:
        yield made


@pytest.fixture
def proxied(quiet_plane: ControlPlane) -> Iterator[tuple[ControlPlane, Proxy]]:
    """A control plane of its own, since its API server is restarted, and a line to it."""
    assert not build.missing()
    plane = ControlPlane()
    proxy = Proxy(plane.port)
    try:
        plane.start()
        plane.define(CRD)
        yield plane, proxy
    finally:
        proxy.close()
        plane.stop()


@pytest.mark.timeout(120)
def test_pods_that_vanish_behind_a_broken_watch_are_replaced_and_leave_no_ghosts(
    proxied: tuple[ControlPlane, Proxy], tmp_path: Path
) -> None:
    plane, proxy = proxied
    kubeconfig = plane.kubeconfig_of("admin", proxy.url)
    scene = Scene(plane)
    settings = {"lease_seconds": 60, "resync_seconds": 600, "log_format": "plain"}
    with OperatorProcess(kubeconfig, tmp_path / "log", **settings) as operator:
        scene.create(make_job(replicas=4))
        pods = scene.run_all(4)
        scene.status_until(lambda status: status.get("readyReplicas") == 4)

        proxy.cut()
        for pod in pods:
            scene.kubelet.remove(pod)
        plane.kill("kube-apiserver")  # its memory of past events goes with it
        plane.start_apiserver()
        proxy.restore()
        replaced = scene.live_pods(4, seconds=30)
        scene.status_until(lambda status: status.get("readyReplicas") == 0)

        assert {pod["metadata"]["uid"] for pod in pods}.isdisjoint(
            pod["metadata"]["uid"] for pod in replaced
        )
        assert scene.job()["status"]["replicas"] == 4
        assert operator.process.poll() is None


async def test_pods_that_vanish_unheard_are_replaced_by_the_resync_alone(
    quiet_plane: ControlPlane,
) -> None:
    scene = Scene(quiet_plane)
    credentials = await find_credentials(str(quiet_plane.kubeconfig))
    chosen = Settings(namespaces=(scene.namespace,), resync_seconds=2.0)
    async with connect(credentials) as session:
        cluster = DeafCluster(session, credentials, Metrics())
        async with runs(Operation(cluster, credentials, chosen, Metrics())):
            scene.create(make_job(replicas=3))
            pods = await asyncio.to_thread(scene.run_all, 3)
            await asyncio.to_thread(scene.status_until, lambda status: status["readyReplicas"] == 3)

            cluster.deaf = True
            for pod in pods:
                scene.kubelet.remove(pod)
            replaced = await asyncio.to_thread(scene.live_pods, 3)
            await asyncio.to_thread(scene.status_until, lambda status: status["readyReplicas"] == 0)

    before, after = ({pod["metadata"]["uid"] for pod in each} for each in (pods, replaced))
    assert before.isdisjoint(after)


async def test_watch_of_jobs_that_has_died_fails_liveness(
    quiet_plane: ControlPlane, line: Proxy
) -> None:
    scene = Scene(quiet_plane)
    direct = await find_credentials(str(quiet_plane.kubeconfig))
    stalled = await find_credentials(str(quiet_plane.kubeconfig_of("admin", line.url)))
    chosen = Settings(namespaces=(scene.namespace,), resync_seconds=1.0, stale_seconds=2.0)
    async with connect(direct) as session:
        # The job watch is kopf's own, with its own connection.
        series = Metrics()
        operation = Operation(Cluster(session, direct, series), stalled, chosen, series)
        async with runs(operation):
            scene.create(make_job())
            await asyncio.to_thread(scene.live_pods, 1)
            healthy = operation.unhealthy()

            line.stall()
            scene.create(make_job("unheard"))
            while (said := operation.unhealthy()) is None:  # noqa: ASYNC110 - nobody tells when
                await asyncio.sleep(0.05)
            served = await asyncio.to_thread(scene.live_pods, 2)
            line.cut()
    exported = series.registry.get_sample_value(
        "dssync_operator_watch_age_seconds", {"kind": jobs_path(None)}
    )

    assert healthy is None
    assert exported is not None
    assert exported > chosen.stale_seconds
    # It may owe the first job as well: a resync can be faster than the start of kopf's watch.
    assert f"has not told of {scene.namespace}/" in said
    assert len(served) == 2  # by the resync


async def test_job_that_is_deleted_unheard_is_forgotten_by_the_resync(
    quiet_plane: ControlPlane, line: Proxy
) -> None:
    scene = Scene(quiet_plane)
    direct = await find_credentials(str(quiet_plane.kubeconfig))
    stalled = await find_credentials(str(quiet_plane.kubeconfig_of("admin", line.url)))
    chosen = Settings(namespaces=(scene.namespace,), resync_seconds=1.0)
    told = Metrics()
    async with (
        connect(direct) as session,
        runs(Operation(Cluster(session, direct, Metrics()), stalled, chosen, told)),
    ):
        # It has no pods and no Lease, so that nothing but the watch of jobs tells of its end.
        scene.create(make_job(template=NO_IMAGE))
        await until_invalid(told, 1)

        line.stall()
        scene.plane.request("DELETE", f"{scene.jobs}/demo")
        await until_invalid(told, 0)
        line.cut()


async def until_invalid(told: Metrics, count: int) -> None:
    """Wait until so many jobs are told as invalid."""
    async with asyncio.timeout(20):
        while told.registry.get_sample_value(*INVALID) != count:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)


def test_silent_watch_is_exported_and_fails_liveness(
    quiet_plane: ControlPlane, tmp_path: Path
) -> None:
    scene = Scene(quiet_plane)
    with OperatorProcess(
        quiet_plane.kubeconfig,
        tmp_path / "log",
        namespaces=scene.namespace,
        lease_name=scene.namespace,
        stale_seconds=1,
    ) as operator:
        scene.create(make_job())
        scene.live_pods(1)

        code, said = poll(operator, "/healthz", 500)

        assert code == 500
        assert "has brought nothing for" in said
        ages = re.findall(
            r"^dssync_operator_watch_age_seconds\{.*\} (\S+)$", metrics(operator), re.M
        )
        assert any(float(age) > 1.0 for age in ages)


def metrics(operator: OperatorProcess) -> str:
    return operator.get("/metrics")[1]


def poll(operator: OperatorProcess, path: str, code: int) -> tuple[int, str]:
    give_up = time.monotonic() + 15
    while True:
        said = operator.get(path)
        if said[0] == code or time.monotonic() > give_up:
            return said
