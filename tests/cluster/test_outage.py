"""The API server is away while a job trains: no step is lost, a dead worker is dropped."""

import time

import pytest

from cluster.field import Field, uid_of

OUTAGE_SECONDS = 30.0
CONTROL_PLANE = "dssync-control-plane"


def test_training_goes_on_without_the_api_server(field: Field) -> None:
    if field.on_node is None:
        pytest.skip("nodes of this cluster cannot be entered")
    field.apply(field.digits("--epochs", "2000", replicas=3))
    pods = field.training(3)
    victim = next(pod for pod in pods if uid_of(pod) != field.coordinator())
    (worker,) = field.workers(victim)
    before = field.metric(pods[0], "dssync_round")

    with field.steady([pod for pod in pods if pod is not victim]):
        field.on_node(CONTROL_PLANE, "pkill", "-STOP", "kube-apiserver")
        try:
            time.sleep(OUTAGE_SECONDS / 2)  # the length of the outage, not a wait for something
            field.kill_from_node(victim, worker[0])
            time.sleep(OUTAGE_SECONDS / 2)
        finally:
            field.on_node(CONTROL_PLANE, "pkill", "-CONT", "kube-apiserver")
        after = field.until(lambda: field.metric(pods[0], "dssync_round"), "metrics again")
        assert after > before + OUTAGE_SECONDS
        field.until(lambda: field.workers(victim) - {worker}, "the worker's replacement")
        field.training(3)

    assert field.status()["restarts"]["total"] == 0
