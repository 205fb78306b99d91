"""What cannot run says so in its status, in words, and goes on when the cause is gone."""

import json
from typing import Any

from cluster.field import IMAGE, Field, Manifest, name_of
from ground.kind.cluster import PLACES, Cluster

ABSENT = "image.invalid/none:1"
RARE = "example.com/rare"


def condition(field: Field, kind: str) -> Manifest:
    found = [c for c in field.status().get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def says(field: Field, kind: str, reason: str, *words: str) -> None:
    """Wait until a condition has a reason and its message these words."""

    def said() -> bool:
        found = condition(field, kind)
        message = str(found.get("message", ""))
        return found.get("reason") == reason and all(word in message for word in words)

    field.until(said, f"{kind} with reason {reason} and {words}")


def job_of(field: Field, **worker: Any) -> Manifest:
    """A small job whose worker container is changed."""
    job = field.digits("--epochs", "2000", replicas=2)
    job["spec"]["template"]["spec"]["containers"][0].update(worker)
    return job


def test_an_image_that_cannot_be_pulled_until_it_is_there(field: Field) -> None:
    field.apply(job_of(field, image=ABSENT))
    says(field, "Degraded", "ImagePullFailed", "digits-w", ABSENT)
    if field.on_node is None:
        return  # only a cluster of this machine can be brought the image

    cluster = Cluster()
    cluster.daemon.docker("tag", IMAGE, ABSENT)
    try:
        cluster.load(ABSENT)
        field.training(2)
    finally:
        cluster.daemon.docker("rmi", ABSENT)
        for node in PLACES:
            field.on_node(node, "ctr", "--namespace=k8s.io", "images", "remove", ABSENT)


def test_more_than_any_node_has_until_one_has_it(field: Field) -> None:
    node = field.kubectl.get("nodes")["items"][0]
    field.apply(job_of(field, resources={"limits": {RARE: 1}}))
    says(field, "Scheduled", "Unschedulable", f"Insufficient {RARE}")

    offer(field, node, "2")
    try:
        field.training(2)
    finally:
        offer(field, node, None)


def offer(field: Field, node: Manifest, count: str | None) -> None:
    """Let a node have something rare, or nothing of it."""
    patch = json.dumps({"status": {"capacity": {RARE: count}, "allocatable": {RARE: count}}})
    flags = ("--subresource=status", "--type=merge", f"--patch={patch}")
    field.kubectl("patch", "node", name_of(node), *flags)


def test_a_command_without_the_launcher_until_it_is_mended(field: Field) -> None:
    field.apply(job_of(field, command=["no-such-command"], args=[]))
    field.until(
        lambda: "LauncherMissing" in field.status().get("terminationMessage", ""),
        "words about a command that does not start",
    )

    for suspend in (True, False):
        mended = job_of(field)
        mended["spec"]["suspend"] = suspend
        field.apply(mended)
        if suspend:
            field.wait("Suspended")

    field.training(2)


def test_a_quota_that_stops_the_third_pod_until_it_is_lifted(field: Field) -> None:
    field.run("create", "quota", "two", "--hard=pods=2")
    field.apply(field.digits("--epochs", "2000", replicas=3))
    says(field, "Degraded", "PodCreateFailed", "exceeded quota: two")

    field.run("delete", "quota", "two")

    field.training(3)


def test_a_restricted_namespace_until_it_is_opened(field: Field) -> None:
    label = "pod-security.kubernetes.io/enforce"
    field.kubectl("label", "namespace", field.namespace, f"{label}=restricted")
    field.apply(field.digits("--epochs", "2000", replicas=2))
    says(field, "Degraded", "PodCreateFailed", "violates PodSecurity")

    field.kubectl("label", "namespace", field.namespace, f"{label}-")

    field.training(2)
