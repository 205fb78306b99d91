"""Which template pods are made from: one that was checked, and no other beside pods of it.

An edit of the job's template waits until no pod is left of the one before. Meanwhile pods are made
from the older one, as the job's Service keeps it.
"""

from collections.abc import Collection
from dataclasses import replace

from dssync_operator.job import Job, Manifest, digest
from dssync_operator.pod import Pod
from dssync_operator.status import ACCEPTED, SUSPENDED, Status


def accepted(status: Status) -> bool:
    """Whether there is a template to make pods from."""
    condition = status.conditions.get(ACCEPTED)
    return condition is not None and condition.reason != "InvalidPodTemplate"


def recall(status: Status, pods: Collection[Pod]) -> Status:
    """Let the pods tell which template was checked, where they are younger than the status."""
    made_from = [pod.template_hash for pod in sorted(pods, key=lambda pod: pod.created)]
    if not made_from or status.template_hash in made_from:
        return status
    return replace(status, template_hash=made_from[-1])


def needs_dry_run(job: Job, status: Status, kept: Manifest | None, pods: Collection[Pod]) -> bool:
    """Whether the template must be checked: no pod is made from it yet, nor from another one.

    One that was refused is checked in every look: what refused it may have been a policy.

    Args:
        job: The job.
        status: What is known of it, as ``recall`` returns it.
        kept: The accepted template, where the job's own is another one; None where it is lost.
        pods: All there are.
    """
    if status.finished or pods:
        return False
    if not accepted(status):
        return True
    changed = digest(job.spec.template) != status.template_hash
    return changed and (status.is_true(SUSPENDED) or kept is None)


def chosen(job: Job, status: Status, kept: Manifest | None) -> Manifest:
    """What to make pods from, once ``status`` tells what was checked; empty for nothing."""
    own = digest(job.spec.template) == status.template_hash
    return job.spec.template if own else kept or {}


def why_it_waits(kept: Manifest | None) -> str:
    """Say what becomes of an edit that is not taken over, and what the user can do."""
    meanwhile = (
        "no pod is made, because the Service does not keep the old one any more"
        if kept is None
        else "pods are still made from the old one"
    )
    return (
        f"spec.template changed while the job runs; {meanwhile}: "
        "suspend the job to take the change over, or take it back"
    )
