"""What ``helm test`` may ask besides the rights: does a small job train to its end?

    python -m dssync_operator.trial JOB SECONDS

Makes the DSSyncJob of the chart, waits until it is complete, deletes it and waits until its pods
are gone: the whole path through operator, kubelets, launchers and workers. The job has its own
account, because the operator itself makes no jobs.
"""

import asyncio
import json
import os
import sys

from dssync import contract
from dssync_operator.cluster import Cluster, connect, find_credentials
from dssync_operator.errors import NotFoundError, OperatorError
from dssync_operator.job import Manifest, child, parse_job, text
from dssync_operator.metrics import Metrics
from dssync_operator.paths import job_path, jobs_path, pods_path
from dssync_operator.status import COMPLETE, Status, parse_status

LOOK_SECONDS = 1.0
REMOVAL_SECONDS = 90.0
"""More than the grace period of the pods."""


def main(arguments: list[str]) -> int:
    """Try it, say how it went, and return the exit code."""
    job, seconds = arguments
    try:
        wrong = asyncio.run(_run(json.loads(job), float(seconds)))
    except OperatorError as error:
        wrong = str(error)
    print(wrong or "a job of two workers was made, has trained to its end and is gone")
    return 1 if wrong else 0


async def _run(manifest: Manifest, seconds: float) -> str:
    """Return what is wrong; empty when all is well."""
    credentials = await find_credentials(os.environ.get("KUBECONFIG"))
    async with connect(credentials) as session:
        cluster = Cluster(session, credentials, Metrics())
        namespace = text(child(manifest, "metadata"), "namespace")
        job = parse_job(await cluster.create(jobs_path(namespace), manifest))
        key = (job.namespace, job.name)
        try:
            wrong = await _complete(cluster, key, seconds)
        finally:
            await cluster.delete(job_path(key), job.uid)
        return wrong or await _removed(cluster, key, job.uid)


async def _complete(cluster: Cluster, key: tuple[str, str], seconds: float) -> str:
    status = Status()
    try:
        async with asyncio.timeout(seconds):
            while not status.finished:
                await asyncio.sleep(LOOK_SECONDS)
                status = parse_status(child(await cluster.get(job_path(key)), "status"))
    except TimeoutError:
        return f"the job is not complete after {seconds:g} s: {_described(status)}"
    return "" if status.is_true(COMPLETE) else f"the job has failed: {_described(status)}"


def _described(status: Status) -> str:
    if not status.conditions:
        return "no operator has looked at it"
    told = [
        f"{kind} is {'true' if condition.true else 'false'}, {condition.reason}: "
        f"{condition.message}"
        for kind, condition in sorted(status.conditions.items())
    ]
    return "; ".join([*told, *filter(None, [status.termination_message])])


async def _removed(cluster: Cluster, key: tuple[str, str], uid: str) -> str:
    left = ["the job"]
    try:
        async with asyncio.timeout(REMOVAL_SECONDS):
            while True:
                left = await _left(cluster, key, uid)
                if not left:
                    return ""
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        return f"{', '.join(left)} not gone {REMOVAL_SECONDS:g} s after the job was deleted"


async def _left(cluster: Cluster, key: tuple[str, str], uid: str) -> list[str]:
    pages = cluster.pages(pods_path(key[0]), f"{contract.LABEL_JOB_UID}={uid}")
    pods = [text(child(pod, "metadata"), "name") async for page, _ in pages for pod in page]
    try:
        await cluster.get(job_path(key))
    except NotFoundError:
        return pods
    return ["the job", *pods]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
