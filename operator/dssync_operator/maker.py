"""Makes the pods of a plan, many at a time and no faster than allowed."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from dssync_operator import errors, resources
from dssync_operator.cluster import Cluster
from dssync_operator.echoes import Echoes
from dssync_operator.job import Job, Manifest, digest, parse_time
from dssync_operator.metrics import Metrics
from dssync_operator.mould import Moulds
from dssync_operator.paths import pod_path, pods_path
from dssync_operator.plan import NewPod
from dssync_operator.pod import Pod, fresh_pod, is_pod_of, parse_pod
from dssync_operator.settings import Settings
from dssync_operator.throttle import TokenBucket

STANDS_FOR: Final = 4
"""Jobs in the making that a job elsewhere in its look counts for, when lanes are shared."""


@dataclass(frozen=True)
class Made:
    """Pods that exist now, and what kept others from being made."""

    pods: tuple[Pod, ...]
    failure: errors.ApiError | None


@dataclass
class _Batch:
    """The pods of one call that are still to be made, and those that are."""

    job: Job
    moulds: Moulds
    template_hash: str
    todo: deque[NewPod]
    lanes: int = 0
    made: list[Pod] = field(default_factory=list)
    failures: list[errors.ApiError] = field(default_factory=list)


class PodMaker:
    """Makes pods for all jobs, under one limit for the rate and one for requests in flight."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        metrics: Metrics,
        echoes: Echoes,
        looks: Callable[[], int],
    ) -> None:
        """Prepare to make pods.

        Args:
            cluster: Where.
            settings: The limits.
            metrics: Shows waits and times.
            echoes: Is told of each pod before it is made.
            looks: How many jobs are looked at just now.
        """
        self._cluster = cluster
        self._metrics = metrics
        self._echoes = echoes
        self._looks = looks
        self._making = 0
        self._concurrency = settings.concurrency
        self._in_flight = asyncio.Semaphore(settings.concurrency)
        self._bucket = TokenBucket(settings.qps, settings.burst, asyncio.get_running_loop().time)

    async def make(self, job: Job, template: Manifest, wanted: Iterable[NewPod]) -> Made:
        """Make pods; after the first refusal the rest is left for another time."""
        hash_ = digest(template)
        batch = _Batch(job, Moulds(job, template, hash_), hash_, deque(wanted))
        lanes: list[asyncio.Task[None]] = []

        def widen() -> None:
            while batch.lanes < min(self._share(), len(batch.todo)):
                batch.lanes += 1
                lanes.append(asyncio.create_task(self._lane(batch, widen)))

        self._making += 1
        try:
            widen()
            for lane in lanes:  # which grows meanwhile
                await lane
        finally:
            self._making -= 1
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        return Made(tuple(batch.made), batch.failures[0] if batch.failures else None)

    def _share(self) -> int:
        """Requests that one job may have in flight.

        A giant has all while it is alone. A job that is in another part of its look sends one
        request after the other, each of which stands behind all that are in flight; so it counts
        for several, and the giant makes room.
        """
        elsewhere = self._looks() - self._making
        return max(1, self._concurrency // max(1, self._making + STANDS_FOR * elsewhere))

    async def _lane(self, batch: _Batch, widen: Callable[[], None]) -> None:
        """Make one pod after the other, for as long as the job's share has room for this lane."""
        try:
            while batch.todo and not batch.failures and batch.lanes <= self._share():
                try:
                    batch.made.append(await self._make_one(batch, batch.todo.popleft()))
                except errors.ApiError as error:
                    batch.failures.append(error)
                widen()
        finally:
            batch.lanes -= 1

    async def _make_one(self, batch: _Batch, new: NewPod) -> Pod:
        waited = await self._bucket.take()
        if waited:
            self._metrics.api_throttle_seconds.inc(waited)
        job, name = batch.job, resources.pod_name(batch.job, new)
        self._echoes.expect(job.namespace, name)
        try:
            async with self._in_flight:
                with self._metrics.pod_create_seconds.time():
                    path, body = pods_path(job.namespace), batch.moulds.cast(new)
                    made = await self._cluster.create_from(path, body)
        except errors.ExistsError:
            self._echoes.withdraw(job.namespace, name)
            return await self._take_over(batch, new)
        except BaseException:
            self._echoes.withdraw(job.namespace, name)
            raise
        created = parse_time(made.creation_timestamp) or 0.0
        return fresh_pod(
            made.name, made.uid, (new.slot, new.incarnation), batch.template_hash, created
        )

    async def _take_over(self, batch: _Batch, new: NewPod) -> Pod:
        """The name is taken: by our own pod, which is success, or by somebody else's."""
        try:
            found = await self._cluster.get(pod_path(batch.job, resources.pod_name(batch.job, new)))
        except errors.NotFoundError:
            return await self._make_one(batch, new)
        if is_pod_of(found, batch.job.uid):
            return parse_pod(found)
        return await self._make_one(batch, replace(new, incarnation=new.incarnation + 1))
