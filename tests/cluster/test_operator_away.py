"""The operator is away for a minute while pods die: training goes on, then they are replaced."""

import time

from cluster.field import Field, uid_of
from cluster.release import NAMESPACE

AWAY_SECONDS = 60.0


def test_without_an_operator_training_goes_on_and_later_dead_pods_are_replaced(
    field: Field,
) -> None:
    elastic = {"minReplicas": 1, "maxReplicas": 4}
    field.apply(field.digits("--epochs", "20000", replicas=4, elastic=elastic))
    pods = field.training(4)
    crashed, deleted, *_ = [pod for pod in pods if uid_of(pod) != field.coordinator()]
    survivors = [pod for pod in pods if pod not in (crashed, deleted)]
    operator = (f"--namespace={NAMESPACE}", "deployment/dssync")

    with field.steady(survivors):
        field.kubectl("scale", *operator, "--replicas=0")
        began = time.monotonic()
        try:
            field.crash(crashed)
            field.until(lambda: field.world_size() == 3, "the view without the crashed pod")
            field.run("delete", "pod", deleted["metadata"]["name"])
            field.until(lambda: field.world_size() == 2, "the view without the deleted pod")
            step = field.step()
            # The length of the outage, not a wait for something.
            time.sleep(max(0.0, began + AWAY_SECONDS - time.monotonic()))
            assert {uid_of(pod) for pod in field.live()} == {uid_of(pod) for pod in survivors}
            assert field.step() > step
        finally:
            field.kubectl("scale", *operator, "--replicas=2")
        grown = field.training(4)
        for pod in grown:
            field.contributes(pod)

    assert field.status()["restarts"]["total"] == 1
