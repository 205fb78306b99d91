"""A job goes on from its checkpoint: after a suspension, and when all its pods die at once."""

from pathlib import Path

import pytest

from cluster.field import Field, Manifest, uid_of
from cluster.timeline import Timeline
from ground.kind.cluster import SHARED, Cluster

WORKERS = 4


@pytest.fixture
def saves(field: Field) -> Path:
    """A folder on storage that all pods share."""
    if field.on_node is None:
        pytest.skip("nodes of this cluster share no folder that is known here")
    folder = Cluster().shared / field.namespace
    folder.mkdir()
    folder.chmod(0o777)  # pods run as a user of their own
    return folder


@pytest.fixture
def pods(field: Field, saves: Path) -> list[Manifest]:
    """Pods on both nodes, of a job that saves itself."""
    checkpoint = {"path": f"{SHARED}/{saves.name}", "intervalSteps": 200}
    job = field.digits("--epochs", "20000", replicas=WORKERS, checkpoint=checkpoint)
    field.mount(job, SHARED)
    field.apply(job)
    found = field.training(WORKERS)
    assert len({pod["spec"]["nodeName"] for pod in found}) == 2
    return found


def goes_on(field: Field, pods: list[Manifest], step: int) -> None:
    """Check that new pods have gone on from a step at least."""
    assert not {uid_of(pod) for pod in pods} & {uid_of(pod) for pod in field.live()}
    field.until(lambda: "resumed from" in field.said(), "words about the checkpoint")
    first = field.step()
    assert first >= step
    assert field.until(lambda: field.step() > first, "progress")


def test_a_suspended_job_has_no_pods_and_resumes_where_it_was(
    field: Field, pods: list[Manifest]
) -> None:
    field.patch({"suspend": True})
    field.wait("Suspended")
    assert field.live() == []
    step = field.step()
    assert step > 0

    field.patch({"suspend": False})

    field.training(WORKERS)
    goes_on(field, pods, step)
    assert field.status()["restarts"]["total"] == 0


def test_when_all_pods_of_both_nodes_die_at_once_the_job_goes_on_from_its_checkpoint(
    field: Field, pods: list[Manifest], saves: Path, timeline: Timeline
) -> None:
    field.until(lambda: any(saves.glob("checkpoint-*")), "a checkpoint")
    term = field.term()

    timeline.begin("kill of all pods")
    for pod in pods:
        field.crash(pod)
    field.until(lambda: field.term() > term and field.world_size() == WORKERS, "a new world")
    timeline.add("world of new pods")

    goes_on(field, pods, 1)
