"""Operator and launchers meet: pods are real launchers, on a real API server, without a cluster."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ground.control_plane import Manifest
from ground.machine import Machine
from ground.scene import Scene, live

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
PACED = Path(__file__).parent / "scripts" / "paced.py"
PATIENCE_SECONDS = 150.0
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def machine(scene: Scene) -> Iterator[Machine]:
    with Machine(scene, DIGITS) as machine:
        yield machine


def make(command: list[str], replicas: int = 3, minimum: int = 1) -> Manifest:
    """A job whose pods run a command."""
    container = {"name": "worker", "image": "none", "command": ["dssync", "run", *command]}
    return {
        "apiVersion": "dssync.io/v1alpha1",
        "kind": "DSSyncJob",
        "metadata": {"name": "demo"},
        "spec": {
            "replicas": replicas,
            "elastic": {"minReplicas": minimum, "maxReplicas": 4},
            "sync": {"groupSize": 2},
            "template": {"spec": {"containers": [container]}},
        },
    }


def until(scene: Scene, machine: Machine, condition: str) -> Manifest:
    """Wait for a condition of the job and return the job's status."""
    try:
        scene.condition(condition, seconds=PATIENCE_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{machine.logs()}") from error
    return scene.job()["status"]


def view_of_three(
    scene: Scene, machine: Machine, after: str = "", restarts: int = 0, term: int = 1
) -> Manifest:
    """Wait for a view of three workers in a term, after so many restarts; return the status.

    A view of the same workers may follow the one ``after`` which it is to come.
    """

    def holds(said: Manifest) -> bool:
        membership = said["membership"]
        is_it = membership["view"] != after and membership["worldSize"] == 3
        return is_it and membership["term"] == term and said["restarts"]["total"] == restarts

    try:
        return scene.status_until(holds, seconds=PATIENCE_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{machine.logs()}") from error


def workers_of(pid: int) -> set[tuple[int, str]]:
    """The processes below a launcher, by pid and start time."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == pid:
            found.add((int(stat.parent.name), after_name[19]))
    return found


def test_a_job_runs_to_complete_and_its_status_tells_of_it(
    scene: Scene, machine: Machine, tmp_path: Path
) -> None:
    example = ["train.py", "--epochs", "2", "--out", str(tmp_path / "result.json")]
    # With a lower minimum the first pod may be through before the others have started.
    scene.create(make(example, minimum=3))

    status = until(scene, machine, "Complete")

    pods = scene.pods_until(lambda found: not live(found))
    assert len(pods) == 3
    assert status["membership"]["worldSize"] == 3
    assert status["membership"]["coordinator"] in {pod["metadata"]["uid"] for pod in pods}
    assert status["progress"]["percent"] == 100
    assert status["progress"]["step"] == status["progress"]["totalSteps"] > 0
    assert status["restarts"]["total"] == 0
    said = [pod["status"]["containerStatuses"][0]["state"]["terminated"] for pod in pods]
    assert {json.loads(each["message"])["verdict"] for each in said} == {"Done"}
    assert json.loads((tmp_path / "result.json").read_text())["accuracy"] > 0.5


def test_a_killed_pod_is_replaced_while_the_others_go_on(scene: Scene, machine: Machine) -> None:
    scene.create(make([str(PACED)]))
    status = view_of_three(scene, machine)
    pods = scene.live_pods(3)
    coordinator = status["membership"]["coordinator"]
    survivors = [p for p in pods if p["metadata"]["uid"] == coordinator]
    victim, *others = [p for p in pods if p["metadata"]["uid"] != coordinator]
    survivors += others
    before = [workers_of(machine.running(pod).process.pid) for pod in survivors]

    machine.running(victim).process.kill()
    replaced = scene.pods_until(
        lambda found: (
            victim["metadata"]["uid"] not in {p["metadata"]["uid"] for p in live(found)}
            and len(live(found)) == 3
        )
    )

    view_of_three(scene, machine, after=status["membership"]["view"], restarts=1)
    after = [workers_of(machine.running(pod).process.pid) for pod in survivors]
    assert before == after
    assert all(before)
    assert len(replaced) == 4


def test_a_killed_coordinator_is_followed_by_another_and_nobody_is_restarted(
    scene: Scene, machine: Machine
) -> None:
    scene.create(make([str(PACED)]))
    status = view_of_three(scene, machine)
    pods = scene.live_pods(3)
    (leader,) = [p for p in pods if p["metadata"]["uid"] == status["membership"]["coordinator"]]
    survivors = [pod for pod in pods if pod is not leader]
    before = [workers_of(machine.running(pod).process.pid) for pod in survivors]

    machine.running(leader).process.kill()

    view_of_three(scene, machine, restarts=1, term=2)
    after = [workers_of(machine.running(pod).process.pid) for pod in survivors]
    assert before == after
    assert all(before)


def test_a_suspended_job_gives_its_pods_up_and_resumes(scene: Scene, machine: Machine) -> None:
    scene.create(make([str(PACED)], replicas=2))
    until(scene, machine, "Running")

    scene.patch("demo", {"suspend": True})
    until(scene, machine, "Suspended")
    scene.pods_until(lambda found: not live(found))
    scene.patch("demo", {"suspend": False})

    until(scene, machine, "Running")
