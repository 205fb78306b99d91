"""The Lease as arbiter, on a real API server, with no more rights than the operator gives pods."""

import asyncio
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from dssync import contract
from dssync.agent.arbiters import Record
from dssync.agent.lease import LeaseArbiter
from dssync.errors import ArbiterError
from dssync_operator import resources
from dssync_operator.record import parse_record
from ground.control_plane import ControlPlane, Manifest
from ground.largest import Largest
from ground.proxy import Proxy
from ground.scene import Scene, make_job

LEASES = "/apis/coordination.k8s.io/v1"
CLAIM = Record(holder="pod-uid-1", term=1, values={contract.RECORD_ADDRESS: "10.0.0.1:29400"})


@dataclass
class Cell:
    """The Lease of a job that the operator has made, seen as one of the job's pods sees it."""

    scene: Scene
    name: str
    kubeconfig: Path

    def arbiter(self) -> LeaseArbiter:
        return LeaseArbiter(self.scene.namespace, self.name, call_seconds=1.0)

    def ask(self, method: str, path: str) -> int:
        """Send a request as the pod and return the status."""
        token = yaml.safe_load(self.kubeconfig.read_text())["users"][0]["user"]["token"]
        self.scene.plane.tokens["pod"] = token
        return self.scene.plane.request(method, path, None, "pod")[0]


@pytest.fixture
def cell(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Cell:
    scene.create(make_job(replicas=2, elastic={"maxReplicas": 3}))
    # The status is the last thing that is written: the operator lets the Lease rest from now on.
    scene.status_until(lambda status: status.get("replicas") == 2)
    account = scene.live_pods(2)[0]["spec"]["serviceAccountName"]
    kubeconfig = scene.plane.kubeconfig_of_account(scene.namespace, account)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return Cell(scene, scene.lease()["metadata"]["name"], kubeconfig)


@pytest.fixture
def lone(empty_scene: Scene, monkeypatch: pytest.MonkeyPatch) -> LeaseArbiter:
    """A Lease that no operator looks after, with a pod's rights on it."""
    plane, rbac = empty_scene.plane, "/apis/rbac.authorization.k8s.io/v1"
    plane.request("POST", empty_scene.path("leases", LEASES), {"metadata": {"name": "cell"}})
    (rule,) = resources.role_rules("cell")
    plane.request(
        "POST", empty_scene.path("roles", rbac), {"metadata": {"name": "pod"}, "rules": [rule]}
    )
    binding = {
        "metadata": {"name": "pod"},
        "subjects": [{"kind": "User", "name": "outsider"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pod"},
    }
    plane.request("POST", empty_scene.path("rolebindings", rbac), binding)
    # The API server hears of new rights by a watch of its own.
    lease = empty_scene.path("leases", LEASES) + "/cell"
    while plane.request("GET", lease, None, "outsider")[0] == 403:
        time.sleep(0.01)
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig_of("outsider")))
    return LeaseArbiter(empty_scene.namespace, "cell", call_seconds=1.0)


@pytest.fixture
def line(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The pod's connection to the API server, which can be cut."""
    plane = cell.scene.plane
    proxy = Proxy(plane.port)
    config = yaml.safe_load(cell.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = proxy.url
    cell.kubeconfig.write_text(yaml.safe_dump(config))
    yield proxy
    proxy.close()


async def test_a_new_lease_is_a_record_without_a_holder(cell: Cell) -> None:
    record = await cell.arbiter().read()

    assert (record.holder, record.term) == ("", 0)
    assert record.values[contract.RECORD_DESIRED] == "2"


async def test_what_one_arbiter_writes_another_and_the_operator_read(cell: Cell) -> None:
    writer = cell.arbiter()
    before = await writer.read()

    written = await writer.swap(before, replace(CLAIM, values={**before.values, **CLAIM.values}))

    assert await cell.arbiter().read() == written
    shown = parse_record(cell.scene.lease())
    assert (shown.holder, shown.term) == ("pod-uid-1", 1)
    assert shown.wanted is not None
    assert shown.wanted.desired == 2


async def test_a_swap_leaves_labels_and_owner_as_they_are(cell: Cell) -> None:
    def kept(lease: Manifest) -> list[object]:
        return [lease["metadata"].get(key) for key in ("labels", "ownerReferences", "uid")]

    before = kept(cell.scene.lease())
    arbiter = cell.arbiter()

    await arbiter.swap(await arbiter.read(), CLAIM)

    assert kept(cell.scene.lease()) == before
    assert all(before)


async def test_a_swap_from_an_old_version_changes_nothing(
    lone: LeaseArbiter, empty_scene: Scene
) -> None:
    first = await lone.read()
    second = await lone.swap(first, CLAIM)

    late = await lone.swap(first, replace(CLAIM, holder="late"))
    without_memory = LeaseArbiter(empty_scene.namespace, "cell")
    later = await without_memory.swap(first, replace(CLAIM, holder="late"))

    assert (late, later) == (None, None)
    assert await lone.read() == second


async def test_a_write_of_the_operator_between_read_and_swap_is_a_conflict(cell: Cell) -> None:
    arbiter = cell.arbiter()
    before = await arbiter.read()
    cell.scene.patch("demo", {"replicas": 3})
    cell.scene.status_until(lambda status: status["replicas"] == 3)

    assert await arbiter.swap(before, CLAIM) is None

    after = await arbiter.read()
    assert (after.holder, after.values[contract.RECORD_DESIRED]) == ("", "3")


async def test_of_racing_candidates_one_wins_each_term(cell: Cell) -> None:
    async def win(holder: str) -> list[int]:
        arbiter, won = cell.arbiter(), []
        while len(won) < 5:
            seen = await arbiter.read()
            written = await arbiter.swap(seen, replace(seen, holder=holder, term=seen.term + 1))
            won += [] if written is None else [written.term]
        return won

    terms = await asyncio.gather(*(win(f"candidate-{index}") for index in range(4)))

    assert sorted(term for won in terms for term in won) == list(range(1, 21))


async def test_the_record_of_the_largest_job_is_taken_by_the_api_server(lone: LeaseArbiter) -> None:
    largest = Largest()

    written = await lone.swap(await lone.read(), replace(CLAIM, values=largest.annotations))

    assert written is not None
    found = await lone.read()
    assert found.gone == frozenset(largest.wanted.gone)
    assert found.paths == largest.wanted.nodes


async def test_a_lease_that_was_deleted_cannot_be_read_or_swapped(
    lone: LeaseArbiter, empty_scene: Scene
) -> None:
    before = await lone.read()
    empty_scene.plane.request("DELETE", f"{empty_scene.path('leases', LEASES)}/cell")

    with pytest.raises(ArbiterError, match="404 Not Found; the operator makes it anew"):
        await lone.read()
    assert await lone.swap(before, CLAIM) is None


async def test_without_rights_the_message_says_which_are_needed(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cell.scene.plane.kubeconfig_of("outsider")))

    with pytest.raises(ArbiterError, match="403 Forbidden; the pod's service account needs get"):
        await cell.arbiter().read()


async def test_without_credentials_it_says_where_they_may_come_from(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

    with pytest.raises(ArbiterError, match="run in a pod or set KUBECONFIG"):
        await cell.arbiter().read()


async def test_a_line_that_is_cut_is_an_error_and_heals(cell: Cell, line: Proxy) -> None:
    arbiter = cell.arbiter()
    before = await arbiter.read()
    line.cut()
    with pytest.raises(ArbiterError, match="no answer from the API server"):
        await arbiter.swap(before, CLAIM)

    line.restore()

    assert await arbiter.swap(before, CLAIM) is not None


async def test_a_server_that_is_silent_is_given_up_while_the_loop_turns(
    quiet_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(quiet_plane)
    quiet_plane.request("POST", scene.path("leases", LEASES), {"metadata": {"name": "cell"}})
    monkeypatch.setenv("KUBECONFIG", str(quiet_plane.kubeconfig))
    arbiter = LeaseArbiter(scene.namespace, "cell", call_seconds=1.0)
    await arbiter.read()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    quiet_plane.signal("kube-apiserver", signal.SIGSTOP)
    turning = asyncio.create_task(turn())
    try:
        with pytest.raises(ArbiterError, match="no answer from the API server"):
            await asyncio.wait_for(arbiter.read(), 5.0)
    finally:
        quiet_plane.signal("kube-apiserver", signal.SIGCONT)
        turning.cancel()

    assert turns > 20


def test_a_pod_may_do_nothing_but_read_and_update_its_lease(cell: Cell) -> None:
    leases = cell.scene.path("leases", LEASES)
    mine, other = f"{leases}/{cell.name}", f"{leases}/other"

    asked = {
        "read mine": cell.ask("GET", mine),
        "read another": cell.ask("GET", other),
        "list": cell.ask("GET", leases),
        "delete mine": cell.ask("DELETE", mine),
        "pods": cell.ask("GET", cell.scene.path("pods")),
        "secrets": cell.ask("GET", cell.scene.path("secrets")),
        "jobs": cell.ask("GET", cell.scene.jobs),
    }

    assert asked.pop("read mine") == 200
    assert set(asked.values()) == {403}
