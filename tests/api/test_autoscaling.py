"""A HorizontalPodAutoscaler on a DSSyncJob, with the real controller and a metric of the test's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.conftest import started
from ground.control_plane import ControlPlane
from ground.metrics_api import METRIC, MetricsApi
from ground.process import OperatorProcess
from ground.scene import Scene, make_job

CONTROLLERS = (
    "garbage-collector-controller,namespace-controller,horizontal-pod-autoscaler-controller"
)
PERIOD = "--horizontal-pod-autoscaler-sync-period=1s"


@pytest.fixture
def scaled_plane() -> Iterator[ControlPlane]:
    with started(controllers=CONTROLLERS, controller_flags=(PERIOD,)) as found:
        yield found


@pytest.fixture
def metrics(scaled_plane: ControlPlane) -> Iterator[MetricsApi]:
    with MetricsApi(scaled_plane) as served:
        yield served


def make_autoscaler() -> dict[str, object]:
    """One pod for each ten of the metric, without any waiting."""
    at_once = {"stabilizationWindowSeconds": 0}
    target = {"type": "AverageValue", "averageValue": "10"}
    spec = {
        "scaleTargetRef": {
            "apiVersion": "dssync.io/v1alpha1",
            "kind": "DSSyncJob",
            "name": "demo",
        },
        "minReplicas": 2,
        "maxReplicas": 6,
        "metrics": [
            {"type": "External", "external": {"metric": {"name": METRIC}, "target": target}}
        ],
        "behavior": {"scaleUp": at_once, "scaleDown": at_once},
    }
    return {"metadata": {"name": "demo"}, "spec": spec}


def test_autoscaler_raises_and_lowers_the_replicas_of_a_job(
    scaled_plane: ControlPlane, metrics: MetricsApi, tmp_path: Path
) -> None:
    scene = Scene(scaled_plane)
    elastic = {"minReplicas": 1, "maxReplicas": 6, "stabilizationSeconds": 0}
    metrics.value = 20
    with OperatorProcess(scaled_plane.kubeconfig, tmp_path / "operator.log"):
        scene.create(make_job(replicas=2, elastic=elastic))
        scene.run_all(2)
        autoscalers = scene.path("horizontalpodautoscalers", "/apis/autoscaling/v2")
        code, said = scaled_plane.request("POST", autoscalers, make_autoscaler())
        assert code == 201, said

        metrics.value = 50
        scene.run_all(5)
        metrics.value = 30
        pods = scene.live_pods(3)
        status = scaled_plane.until(
            autoscalers, lambda found: found[0]["status"]["desiredReplicas"] == 3
        )[0]["status"]

    assert scene.job()["spec"]["replicas"] == 3
    assert {pod["metadata"]["labels"]["dssync.io/worker-index"] for pod in pods} == {"0", "1", "2"}
    told = {each["type"]: each["status"] for each in status["conditions"]}
    assert (told["AbleToScale"], told["ScalingActive"]) == ("True", "True")
