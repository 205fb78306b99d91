"""What the operator takes from a pod."""

import json
from typing import Any

import pytest

from dssync import contract
from dssync_operator.pod import Pod, is_pod_of, parse_pod
from dssync_operator.policies.lifecycle import leftovers


def pod(phase: str, message: str = "") -> Pod:
    """A pod whose worker has ended; a sidecar may still run."""
    terminated: dict[str, Any] = {"exitCode": 42, "reason": "Error", "message": message}
    container = {"name": "worker", "state": {"terminated": terminated}}
    labels = {
        contract.LABEL_SLOT: "0",
        contract.LABEL_INCARNATION: "0",
        contract.LABEL_TEMPLATE_HASH: "",
    }
    return parse_pod(
        {
            "metadata": {"name": "demo-w0-0", "uid": "uid", "labels": labels},
            "status": {"phase": phase, "containerStatuses": [container]},
        }
    )


def test_the_launchers_message_is_read_and_not_shown() -> None:
    said = {"verdict": "UserError", "reason": "1 of 1 workers failed", "exit_code": 42}

    ended = pod("Failed", json.dumps(said)).ended

    assert ended is not None
    assert (ended.verdict, ended.reason) == ("UserError", "1 of 1 workers failed")
    assert ended.message == ""


def test_words_of_anybody_else_are_shown() -> None:
    ended = pod("Failed", "Traceback: no such file").ended

    assert ended is not None
    assert ended.message == "Traceback: no such file"


@pytest.mark.parametrize("message", ["[" * 4000, "{" * 4000, "7", '["Done"]', "\x00"])
def test_message_that_no_launcher_writes_is_only_shown(message: str) -> None:
    ended = pod("Failed", message).ended

    assert ended is not None
    assert (ended.verdict, ended.message) == ("", message)


@pytest.mark.parametrize(
    ("policy", "phase", "goes"),
    [
        ("Running", "Running", True),  # a sidecar holds it
        ("Running", "Failed", False),
        ("All", "Failed", True),
        ("None", "Running", False),
    ],
)
def test_clean_up_of_a_finished_job(policy: str, phase: str, goes: bool) -> None:
    assert bool(leftovers(policy, [pod(phase)])) is goes


@pytest.mark.parametrize(
    ("kind", "state", "held"),
    [
        ("containerStatuses", {"running": {}}, True),
        ("containerStatuses", {"terminated": {"exitCode": 0}}, False),
        ("containerStatuses", {"waiting": {"reason": "ImagePullBackOff"}}, False),
        ("initContainerStatuses", {"running": {}}, False),  # the kubelet ends it
        ("other", {}, False),  # and it tells of the worker's end before the phase is another
    ],
)
def test_ended_pod_is_held_by_a_sidecar_and_not_by_the_phase(
    kind: str, state: dict[str, Any], held: bool
) -> None:
    worker = {"name": "worker", "state": {"terminated": {"exitCode": 1}}}
    status: dict[str, Any] = {"phase": "Running", "containerStatuses": [worker]}
    status[kind] = [*status.get(kind, []), {"name": "sidecar", "state": state}]

    assert parse_pod({"metadata": {"labels": PLACE}, "status": status}).held is held


OWNER = {"kind": "DSSyncJob", "uid": "job", "controller": True}
PLACE = {contract.LABEL_SLOT: "0", contract.LABEL_INCARNATION: "3"}


@pytest.mark.parametrize(
    ("owners", "labels", "ours"),
    [
        ([OWNER], PLACE, True),
        ([], PLACE, False),  # a copy for debugging, with all labels
        ([{**OWNER, "uid": "another"}], PLACE, False),
        ([{**OWNER, "controller": False}], PLACE, False),
        ([OWNER], {**PLACE, contract.LABEL_SLOT: "none"}, False),
        ([OWNER], {contract.LABEL_SLOT: "0"}, False),
    ],
)
def test_pod_is_a_jobs_if_the_job_owns_it_and_its_place_can_be_read(
    owners: list[dict[str, Any]], labels: dict[str, str], ours: bool
) -> None:
    manifest = {"metadata": {"ownerReferences": owners, "labels": labels}}

    assert is_pod_of(manifest, "job") is ours


RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
STARTING = {"waiting": {"reason": "PodInitializing"}}
NO_IMAGE = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}


@pytest.mark.parametrize(
    ("worker", "sidecar", "init", "phase", "waiting"),
    [
        (NO_IMAGE, NO_IMAGE, RUNNING, "Pending", "no such image"),
        (STARTING, STARTING, NO_IMAGE, "Pending", "container init: no such image"),
        (RUNNING, NO_IMAGE, {}, "Running", "container sidecar: no such image"),
        (RUNNING, RUNNING, {}, "Running", None),
        (STARTING, STARTING, RUNNING, "Pending", None),
    ],
)
def test_container_that_cannot_start_is_seen_and_only_the_workers_holds_it_up(
    worker: Any, sidecar: Any, init: Any, phase: str, waiting: str | None
) -> None:
    status = {
        "phase": "Pending",  # the kubelet's, for as long as one container has not started
        "containerStatuses": [
            {"name": "sidecar", "state": sidecar},
            {"name": "worker", "state": worker},
        ],
        "initContainerStatuses": [{"name": "init", "state": init}],
    }

    seen = parse_pod({"metadata": {"labels": PLACE}, "status": status})

    assert seen.phase == phase
    assert seen.waiting == (None if waiting is None else ("ImagePullBackOff", waiting))


@pytest.mark.parametrize(
    ("grace", "finalizers", "vanishing"),
    [(0, [], True), (60, [], False), (0, ["example.com/keep"], False), (None, [], False)],
)
def test_pod_without_grace_vanishes_unless_somebody_holds_it(
    grace: int | None, finalizers: list[str], vanishing: bool
) -> None:
    labels = {contract.LABEL_SLOT: "0", contract.LABEL_INCARNATION: "0"}
    metadata = {"labels": labels, "deletionGracePeriodSeconds": grace, "finalizers": finalizers}

    assert parse_pod({"metadata": metadata}).vanishing is vanishing
