"""The number of pods changes: by kubectl, as an autoscaler does it, while the operator dies."""

import json

import pytest

from cluster.field import Field, Manifest, name_of, uid_of
from cluster.release import operators
from cluster.timeline import Timeline
from dssync import contract

SCALE = "/apis/dssync.io/v1alpha1/namespaces/{}/dssyncjobs/digits/scale"


@pytest.fixture
def pods(field: Field) -> list[Manifest]:
    """Four pods that train for longer than any test."""
    elastic = {"minReplicas": 1, "maxReplicas": 6, "stabilizationSeconds": 2}
    field.apply(field.digits("--epochs", "20000", replicas=4, elastic=elastic))
    return field.training(4)


def slots(pods: list[Manifest]) -> list[str]:
    return sorted(pod["metadata"]["labels"][contract.LABEL_SLOT] for pod in pods)


def test_scale_up_and_down(field: Field, pods: list[Manifest], timeline: Timeline) -> None:
    with field.steady(pods):
        timeline.begin("scale 4 to 6")
        field.run("scale", "dsj/digits", "--replicas=6")
        grown = field.training(6)
        timeline.add("view of 6")
        for pod in grown:
            field.contributes(pod)
        timeline.add("all contribute")

    lowest = [pod for pod in grown if pod["metadata"]["labels"][contract.LABEL_SLOT] in "01"]
    with field.steady(lowest):
        field.run("scale", "dsj/digits", "--replicas=2")
        field.until(lambda: len(field.live()) == 2, "two pods")
        field.until(lambda: field.world_size() == 2, "a view of two")

    assert {uid_of(pod) for pod in field.live()} == {uid_of(pod) for pod in lowest}
    assert field.status()["restarts"]["total"] == 0


def test_an_autoscaler_finds_pods_and_number_and_changes_it(
    field: Field, pods: list[Manifest]
) -> None:
    path = SCALE.format(field.namespace)
    seen = json.loads(field.kubectl("get", f"--raw={path}"))
    chosen = field.kubectl.get(
        f"--namespace={field.namespace}", "pods", f"--selector={seen['status']['selector']}"
    )["items"]
    assert {uid_of(pod) for pod in chosen} == {uid_of(pod) for pod in pods}
    assert (seen["spec"]["replicas"], seen["status"]["replicas"]) == (4, 4)

    with field.steady(pods):
        wanted = {**seen, "spec": {"replicas": 5}}
        field.kubectl("replace", f"--raw={path}", "--filename=-", stdin=json.dumps(wanted))
        field.training(5)

    def told() -> bool:
        now = json.loads(field.kubectl("get", f"--raw={path}"))
        return int(now["status"]["replicas"]) == 5

    field.until(told, "the number of pods in /scale")


def restarts(pods: list[Manifest]) -> dict[str, int]:
    return {name_of(p): p["status"]["containerStatuses"][0]["restartCount"] for p in pods}


def test_an_operator_that_dies_while_it_scales_makes_no_pod_twice(
    field: Field, pods: list[Manifest]
) -> None:
    acting = operators(field.kubectl)
    assert len(acting) == 2

    with field.steady(pods):
        field.run("scale", "dsj/digits", "--replicas=6")
        for pod in acting:
            field.crash(pod)
        grown = field.training(6)

    assert slots(grown) == list("012345")
    assert {uid_of(pod) for pod in pods} <= {uid_of(pod) for pod in grown}
    assert len({name_of(pod) for pod in field.pods()}) == 6

    def back() -> bool:
        now = operators(field.kubectl)
        ready = all(pod["status"]["containerStatuses"][0]["ready"] for pod in now)
        return ready and restarts(now) == {name: n + 1 for name, n in restarts(acting).items()}

    field.until(back, "both replicas of the operator have started anew")
