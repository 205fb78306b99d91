"""A node is drained, freezes, stops, and comes back."""

import pytest

from cluster.field import Field, Manifest, uid_of
from cluster.timeline import Timeline
from ground.kind.cluster import NAME, Cluster

WORKER_NODE = f"{NAME}-worker"


@pytest.fixture
def cluster(field: Field) -> Cluster:
    """The cluster whose nodes are containers of this machine."""
    if field.on_node is None:
        pytest.skip("nodes of this cluster are not ours to freeze and to stop")
    return Cluster()


def spread(field: Field) -> list[Manifest]:
    """Three pods that train on both nodes, the coordinator's beside the API server."""
    elastic = {"minReplicas": 1, "maxReplicas": 3}
    failure = {"unreachableSeconds": 5}
    job = field.digits("--epochs", "20000", replicas=1, elastic=elastic, nodeFailure=failure)
    field.kubectl("cordon", WORKER_NODE)
    try:
        field.apply(job)
        field.training(1)
    finally:
        field.kubectl("uncordon", WORKER_NODE)
    field.run("scale", "dsj/digits", "--replicas=3")
    pods = field.training(3)
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    return pods


def ready(field: Field) -> None:
    """Wait until the node is ready."""
    field.kubectl("wait", "--for=condition=Ready", f"node/{WORKER_NODE}", "--timeout=120s")


def test_a_drained_node_moves_its_pods(field: Field) -> None:
    pods = spread(field)
    staying = [pod for pod in pods if pod["spec"]["nodeName"] != WORKER_NODE]

    flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--force")
    try:
        with field.steady(staying):
            field.kubectl("drain", WORKER_NODE, *flags)
            field.until(lambda: len(field.live()) == 3, "three pods beside the drained node")
            field.training(3)
    finally:
        field.kubectl("uncordon", WORKER_NODE)

    assert WORKER_NODE not in {pod["spec"]["nodeName"] for pod in field.live()}
    assert field.status()["restarts"]["total"] == 0


def test_pods_of_a_frozen_node_are_replaced_elsewhere(
    field: Field, cluster: Cluster, timeline: Timeline
) -> None:
    pods = spread(field)
    staying = [pod for pod in pods if pod["spec"]["nodeName"] != WORKER_NODE]

    timeline.begin("freeze")
    cluster.daemon.docker("pause", WORKER_NODE)
    try:
        with field.steady(staying):
            field.until(lambda: field.world_size() == len(staying), "the view without them")
            timeline.add("view without them")
            field.training(3)
            timeline.add("replacements in the view")
    finally:
        cluster.daemon.docker("unpause", WORKER_NODE)

    ready(field)
    with field.steady(staying):
        field.until(lambda: len(field.pods()) == 3, "the frozen pods are gone")
    assert field.world_size() == 3


def test_pods_of_a_stopped_node_are_replaced_elsewhere_and_it_is_used_again(
    field: Field, cluster: Cluster, timeline: Timeline
) -> None:
    pods = spread(field)
    staying = [pod for pod in pods if pod["spec"]["nodeName"] != WORKER_NODE]

    timeline.begin("stop")
    cluster.daemon.docker("stop", "--time=1", WORKER_NODE)
    try:
        with field.steady(staying):
            field.until(lambda: field.world_size() == len(staying), "the view without them")
            timeline.add("view without them")
            not_ready = "--for=condition=Ready=Unknown"
            field.kubectl("wait", not_ready, f"node/{WORKER_NODE}", "--timeout=120s")
            timeline.add("node not ready")
            field.training(3)
            timeline.add("replacements in the view")
    finally:
        cluster.daemon.docker("start", WORKER_NODE)
        ready(field)
        cluster.furnish()

    with field.steady(staying):
        field.until(lambda: len(field.pods()) == 3, "the pods of the stopped node are gone")
        moved = [pod for pod in field.live() if uid_of(pod) not in set(map(uid_of, staying))]
        field.run("delete", "pod", moved[0]["metadata"]["name"])
        field.contributes(field.replacement([*pods, *moved]))
