"""The whole path: helm install, kubectl apply, training, Complete."""

import json

from cluster.field import Field, name_of
from cluster.timeline import Timeline

WORKERS = 6


def test_the_example_trains_to_complete(field: Field, timeline: Timeline) -> None:
    timeline.begin("apply")

    field.apply(field.digits())

    pods = field.training(WORKERS)
    timeline.add("world formed")
    field.until(lambda: field.rounds(pods[0]) > 0, "a committed round")
    timeline.add("first committed round")
    field.wait("Complete")
    timeline.add("complete")
    timeline.add_pods(pods)
    imported = max(field.printed_at(pod, "started") for pod in pods)
    timeline.add("torch imported by the last worker", imported)
    status = field.status()
    assert status["membership"]["worldSize"] == WORKERS
    assert status["progress"]["percent"] == 100
    assert status["restarts"]["total"] == 0
    field.until(lambda: not field.live(), "all pods ended")
    said = [pod["status"]["containerStatuses"][0]["state"]["terminated"] for pod in field.pods()]
    assert [json.loads(each["message"])["verdict"] for each in said] == ["Done"] * WORKERS


def test_pods_of_a_job_are_spread_and_no_survivor_of_a_killed_worker_is_restarted(
    field: Field,
) -> None:
    field.apply(field.digits("--epochs", "200"))
    pods = field.training(WORKERS)
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    victim, *others = [pod for pod in pods if pod["metadata"]["uid"] != field.coordinator()]
    before = {name_of(pod): field.processes(pod) for pod in others}
    step = field.step()
    (worker,) = field.workers(victim)

    field.kill(victim, worker[0])

    field.until(lambda: field.workers(victim) - {worker}, "the worker's replacement")
    field.training(WORKERS)
    after = {name_of(pod): field.processes(pod) for pod in others}
    assert after == before
    assert field.until(lambda: field.step() > step, "progress")
    assert len(field.pods()) == WORKERS
