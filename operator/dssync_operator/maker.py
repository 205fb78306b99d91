"""Makes the pods of a plan, many at a time and no faster than allowed."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dssync import contract
from dssync_operator import errors, resources
from dssync_operator.cluster import Cluster
from dssync_operator.job import Job, Manifest, child, digest, text
from dssync_operator.metrics import Metrics
from dssync_operator.paths import pod_path, pods_path
from dssync_operator.plan import NewPod
from dssync_operator.pod import Pod, parse_pod
from dssync_operator.settings import Settings
from dssync_operator.throttle import TokenBucket


@dataclass(frozen=True)
class Made:
    """Pods that exist now, and what kept others from being made."""

    pods: tuple[Pod, ...]
    failure: errors.ApiError | None


class PodMaker:
    """Makes pods for all jobs, under one limit for the rate and one for requests in flight."""

    def __init__(self, cluster: Cluster, settings: Settings, metrics: Metrics) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._in_flight = asyncio.Semaphore(settings.concurrency)
        # A giant job may not fill the queue in front of everybody else's pods.
        self._share = max(1, settings.concurrency // 4)
        self._bucket = TokenBucket(settings.qps, settings.burst, asyncio.get_running_loop().time)

    async def make(self, job: Job, template: Manifest, wanted: Iterable[NewPod]) -> Made:
        """Make pods; after the first refusal the rest is left for another time."""
        todo = iter(tuple(wanted))
        hash_ = digest(template)
        made: list[Pod] = []
        failures: list[errors.ApiError] = []

        async def lane() -> None:
            for new in todo:
                if failures:
                    return
                try:
                    made.append(await self._make_one(job, template, hash_, new))
                except errors.ApiError as error:
                    failures.append(error)

        await asyncio.gather(*(lane() for _ in range(self._share)))
        return Made(tuple(made), failures[0] if failures else None)

    async def _make_one(self, job: Job, template: Manifest, hash_: str, new: NewPod) -> Pod:
        waited = await self._bucket.take()
        self._metrics.api_throttle_seconds.inc(waited)
        async with self._in_flight:
            with self._metrics.pod_create_seconds.time():
                try:
                    manifest = resources.pod(job, template, hash_, new)
                    return parse_pod(await self._cluster.create(pods_path(job.namespace), manifest))
                except errors.ExistsError:
                    pass
        return await self._take_over(job, template, hash_, new)

    async def _take_over(self, job: Job, template: Manifest, hash_: str, new: NewPod) -> Pod:
        """The name is taken: by our own pod, which is success, or by somebody else's."""
        try:
            found = await self._cluster.get(pod_path(job, resources.pod_name(job, new)))
        except errors.NotFoundError:
            return await self._make_one(job, template, hash_, new)
        if text(child(child(found, "metadata"), "labels"), contract.LABEL_JOB_UID) == job.uid:
            return parse_pod(found)
        return await self._make_one(
            job, template, hash_, replace(new, incarnation=new.incarnation + 1)
        )
