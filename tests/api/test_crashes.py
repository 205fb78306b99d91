"""The operator dies at every request in turn, and its successor comes to the same end."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from dssync_operator import errors
from ground.api import PATIENCE_SECONDS
from ground.control_plane import ControlPlane
from ground.inprocess import Death, Harness, harness
from ground.process import OperatorProcess
from ground.scene import Scene, condition_of, live, make_job, most_at_once, slot_of

REPLICAS, TERM = 2, 6
pytestmark = pytest.mark.usefixtures("quiet_lines")
FATES = ("new", "failed", "vanished", "scaled down", "suspended", "lease lost", "done")


async def calls_of_a_look(operator: Harness, scene: Scene) -> int:
    calls = Counter[str]()

    def count(verb: str, path: str) -> None:
        calls[verb] += 1

    operator.cluster.before = count
    await operator.reconciler.look((scene.namespace, "demo"))
    operator.heal()
    return calls.total()


async def look_until_quiet(operator: Harness, scene: Scene) -> None:
    operator.heal()
    before = None
    for _ in range(10):
        await operator.reconciler.look((scene.namespace, "demo"))
        now = scene.job().get("status"), [pod["metadata"]["uid"] for pod in scene.pods()]
        if now == before:
            return
        before = now
    raise AssertionError("the job does not come to rest")


def prepare_new(scene: Scene) -> None:
    # Everything is deleted at the end, so a verdict that was not written before is lost.
    elastic = {"maxReplicas": REPLICAS, "stabilizationSeconds": 0}
    scene.create(make_job(replicas=REPLICAS, elastic=elastic, cleanPodPolicy="All"))


async def prepare_running(operator: Harness, scene: Scene) -> None:
    prepare_new(scene)
    await look_until_quiet(operator, scene)
    for pod in scene.pods():
        scene.kubelet.run(pod)
    scene.say("launcher", view=json.dumps({"term": TERM, "sequence": 1, "pods": 2, "workers": 2}))
    await look_until_quiet(operator, scene)


async def die_everywhere(plane: ControlPlane, fate: str) -> None:
    """Run a fate once for each request that its look makes, dying there."""
    call, done = 0, False
    while not done:
        for answered in (False, True):
            scene = Scene(plane)
            async with harness(plane, time.time) as operator:
                done = await one_death(operator, scene, fate, call, answered)
        call += 1
    assert call > 3, "the look made hardly any requests"


async def one_death(operator: Harness, scene: Scene, fate: str, call: int, answered: bool) -> bool:
    """Return whether the look ended before it came to that request."""
    if fate == "new":
        prepare_new(scene)
    else:
        await prepare_running(operator, scene)
    befall(scene, fate)
    operator.die_at(call, answered)
    survived = True
    try:
        await operator.reconciler.look((scene.namespace, "demo"))
    except Death:
        survived = False
    check_confirmed(scene)
    operator.restart()
    await look_until_quiet(operator, scene)
    check(scene, fate)
    return survived


def befall(scene: Scene, fate: str) -> None:
    """Let happen what the operator then looks at."""
    if fate == "suspended":
        scene.patch("demo", {"suspend": True})
    elif fate == "scaled down":
        scene.patch("demo", {"replicas": 1})
    elif fate == "lease lost":
        scene.delete_lease()
    for pod in scene.pods():
        if fate == "done":
            scene.kubelet.end(pod, 0, "Done")
        elif fate == "failed" and slot_of(pod) == 1:
            scene.kubelet.end(pod, 1, "UserError")
        elif fate == "vanished" and slot_of(pod) == 1:
            scene.kubelet.remove(pod)


def check_confirmed(scene: Scene) -> None:
    """No replacement exists whose predecessor launchers must still take for alive."""
    ended = [pod for pod in scene.pods() if pod["status"]["phase"] == "Failed"]
    filled = {slot_of(pod) for pod in live(scene.pods())}
    for pod in ended:
        if slot_of(pod) in filled:
            gone = scene.lease()["metadata"]["annotations"]["dssync.io/gone"]
            assert pod["metadata"]["uid"] in gone


def check(scene: Scene, fate: str) -> None:
    status, pods = scene.job()["status"], scene.pods()
    slots = sorted(slot_of(pod) for pod in live(pods))
    if fate == "done":
        assert condition_of(status, "Complete")["status"] == "True"
        assert slots == []
        return
    wanted = {"suspended": 0, "scaled down": 1}.get(fate, REPLICAS)
    assert slots == list(range(wanted))
    assert status["replicas"] == wanted
    assert status["restarts"]["total"] == (1 if fate == "failed" else 0)
    if fate == "lease lost":
        assert scene.lease()["spec"]["leaseTransitions"] == TERM
    gone = scene.lease()["metadata"]["annotations"]["dssync.io/gone"]
    ended = [pod["metadata"]["uid"] for pod in pods if pod["status"]["phase"] == "Failed"]
    assert all(uid in gone for uid in ended)
    known = scene.lease()["metadata"]["annotations"]["dssync.io/pods"]
    assert all(pod["metadata"]["uid"] in known for pod in live(pods))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fate", FATES)
async def test_operator_that_dies_at_any_request_leaves_work_that_its_successor_finishes(
    quiet_plane: ControlPlane, fate: str
) -> None:
    await die_everywhere(quiet_plane, fate)


REFUSALS = [
    errors.ConflictError("changed", 409),
    errors.UnavailableError("too many", 429, 0.0),
    errors.UnavailableError("ill", 500),
    errors.UnavailableError("no answer"),
]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: str(error.code))
async def test_request_that_fails_once_is_made_good(
    quiet_plane: ControlPlane, refusal: errors.ApiError
) -> None:
    async with harness(quiet_plane, time.time) as operator:
        first = Scene(quiet_plane)
        prepare_new(first)
        calls = await calls_of_a_look(operator, first)
        for call in range(calls):
            scene = Scene(quiet_plane)
            prepare_new(scene)
            operator.fail_at(call, refusal)
            with contextlib.suppress(errors.ApiError):
                await operator.reconciler.look((scene.namespace, "demo"))
            await look_until_quiet(operator, scene)
            check(scene, "new")


async def test_two_operators_at_once_make_no_pod_twice(quiet_plane: ControlPlane) -> None:
    scene = Scene(quiet_plane)
    scene.create(make_job(replicas=20))
    key = (scene.namespace, "demo")
    async with harness(quiet_plane, time.time) as one, harness(quiet_plane, time.time) as other:
        for _ in range(3):
            await asyncio.gather(
                one.reconciler.look(key), other.reconciler.look(key), return_exceptions=True
            )
        await look_until_quiet(one, scene)

    assert [pod["metadata"]["name"] for pod in scene.pods()] == sorted(
        f"demo-w{slot}-0" for slot in range(20)
    )


@pytest.mark.timeout(120)
def test_two_running_operators_that_both_lead_make_no_pod_twice(
    quiet_plane: ControlPlane, tmp_path: Path
) -> None:
    scene = Scene(quiet_plane)

    def start(name: str) -> OperatorProcess:
        own = {"namespaces": scene.namespace, "lease_name": f"{scene.namespace}-{name}"}
        return OperatorProcess(quiet_plane.kubeconfig, tmp_path / name, **own)

    with start("one") as one, start("other") as other:
        for process in (one, other):
            give_up = time.monotonic() + PATIENCE_SECONDS
            while process.get("/readyz") != (200, "leader"):
                assert time.monotonic() < give_up, process.log.read_text()
        since = scene.version()
        scene.create(make_job(replicas=12))
        pods = scene.run_all(12)
        scene.kubelet.end(pods[0], 1, "UserError")
        for pod in pods[1:6]:
            scene.kubelet.remove(pod)
        status = scene.status_until(
            lambda status: status["restarts"]["total"] == 1 and status["replicas"] == 12
        )
        after = scene.live_pods(12)
        alive = [process.process.poll() for process in (one, other)]

    assert alive == [None, None]
    assert sorted(slot_of(pod) for pod in after) == list(range(12))
    assert status["restarts"]["inWindow"] == 1
    history = scene.history(since)
    assert most_at_once(history) == dict.fromkeys(range(12), 1)
    assert len({event["object"]["metadata"]["uid"] for event in history}) == 12 + 1 + 5
