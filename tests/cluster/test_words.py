"""What cannot run says so in its status, in words, and goes on when the cause is gone."""

import json
from typing import Any

from cluster.field import Field, Manifest


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
    job = field.digits(replicas=3)
    job["spec"]["template"]["spec"]["containers"][0].update(worker)
    return job


def test_an_image_that_cannot_be_pulled(field: Field) -> None:
    field.apply(job_of(field, image="image.invalid/none:1"))

    says(field, "Degraded", "ImagePullFailed", "digits-w", "image.invalid/none:1")


def test_more_than_any_node_has(field: Field) -> None:
    field.apply(job_of(field, resources={"limits": {"nvidia.com/gpu": 99}}))

    says(field, "Scheduled", "Unschedulable", "Insufficient nvidia.com/gpu")


def test_a_command_without_the_launcher(field: Field) -> None:
    field.apply(job_of(field, command=["no-such-command"], args=[]))

    # The runtime cannot start it, which the kubelet calls StartError.
    field.until(
        lambda: "StartError" in json.dumps(field.status()) or "LauncherMissing" in field.events(),
        "words about a command that does not start",
    )


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
