"""Pods and nodes come and go while a job trains: survivors go on, replacements contribute."""

import pytest

from cluster.field import Field, Manifest, name_of, uid_of
from cluster.timeline import Timeline

LONG = ("--epochs", "2000")


def but_coordinator(field: Field, pods: list[Manifest]) -> list[Manifest]:
    return [pod for pod in pods if uid_of(pod) != field.coordinator()]


@pytest.fixture
def pods(field: Field) -> list[Manifest]:
    """Three pods that train for longer than any test."""
    elastic = {"minReplicas": 1, "maxReplicas": 5, "stabilizationSeconds": 2}
    field.apply(field.digits(*LONG, replicas=3, elastic=elastic))
    return field.training(3)


def test_a_deleted_pod_drains_and_is_replaced(
    field: Field, pods: list[Manifest], timeline: Timeline
) -> None:
    victim = but_coordinator(field, pods)[0]

    with field.steady([pod for pod in pods if pod is not victim]):
        timeline.begin("delete")
        field.run("delete", "pod", name_of(victim))
        timeline.add("gone")
        replacement = field.replacement(pods)
        timeline.add("replacement runs")
        field.contributes(replacement)
        timeline.add("replacement contributes")

    assert field.status()["restarts"]["total"] == 0


def test_a_force_deleted_pod_is_replaced(
    field: Field, pods: list[Manifest], timeline: Timeline
) -> None:
    victim = but_coordinator(field, pods)[0]
    survivors = [pod for pod in pods if pod is not victim]

    with field.steady(survivors):
        timeline.begin("force delete")
        field.run("delete", "pod", name_of(victim), "--force", "--grace-period=0")
        field.until(lambda: field.world_size() == 2, "the view without it")
        timeline.add("view without it")
        field.contributes(field.replacement(pods))
        timeline.add("replacement contributes")


def test_a_killed_launcher_costs_its_pod_and_no_other(field: Field, pods: list[Manifest]) -> None:
    victim = but_coordinator(field, pods)[0]

    with field.steady([pod for pod in pods if pod is not victim]):
        field.crash(victim)
        field.contributes(field.replacement(pods))

    assert field.status()["restarts"]["total"] == 1


def test_a_deleted_job_leaves_nothing(field: Field, pods: list[Manifest]) -> None:
    field.run("delete", "dsj", "digits", "--wait")

    kinds = "pods,services,leases,secrets,roles,rolebindings"
    label = "--selector=app.kubernetes.io/managed-by=dssync-operator"

    def nothing() -> bool:
        return not field.kubectl.get(f"--namespace={field.namespace}", kinds, label)["items"]

    field.until_gone(nothing, seconds=90.0)
