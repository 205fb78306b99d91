"""A node freezes with its pods and comes back."""

import pytest

from cluster.field import Field, Manifest
from cluster.timeline import Timeline
from ground.kind.cluster import NAME, Cluster

WORKER_NODE = f"{NAME}-worker"


def spread(field: Field) -> list[Manifest]:
    """Three pods that train on both nodes, the coordinator's beside the API server."""
    elastic = {"minReplicas": 1, "maxReplicas": 3}
    field.kubectl("cordon", WORKER_NODE)
    try:
        field.apply(field.digits("--epochs", "4000", replicas=1, elastic=elastic))
        field.training(1)
    finally:
        field.kubectl("uncordon", WORKER_NODE)
    field.run("scale", "dsj/digits", "--replicas=3")
    pods = field.training(3)
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    return pods


def test_pods_of_a_frozen_node_are_replaced_elsewhere(field: Field, timeline: Timeline) -> None:
    if field.on_node is None:
        pytest.skip("nodes of this cluster cannot be frozen")
    docker = Cluster().daemon.docker
    pods = spread(field)
    staying = [pod for pod in pods if pod["spec"]["nodeName"] != WORKER_NODE]

    timeline.begin("freeze")
    docker("pause", WORKER_NODE)
    try:
        with field.steady(staying):
            field.until(lambda: field.world_size() == len(staying), "the view without them")
            timeline.add("view without them")
            field.training(3)
            timeline.add("replacements in the view")
    finally:
        docker("unpause", WORKER_NODE)

    ready = ("wait", "--for=condition=Ready", f"node/{WORKER_NODE}", "--timeout=120s")
    field.kubectl(*ready)
    with field.steady(staying):
        field.until(lambda: len(field.pods()) == 3, "the frozen pods are gone")
    assert field.world_size() == 3
