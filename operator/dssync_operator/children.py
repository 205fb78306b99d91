"""The objects beside the pods: Service, Lease, Secret and rights.

They are applied once, the Service last, and its annotation holds a hash of all of them. A process
that finds the hash right trusts it until the next resync, when it looks whether each still is as
it should be. So neither a quiet job nor a restart of the operator costs a single write.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from dssync_operator import errors, resources
from dssync_operator.cluster import Cluster
from dssync_operator.job import Job, Manifest, WorkerRbac, child, digest
from dssync_operator.metrics import Metrics
from dssync_operator.paths import collection_of, path_of
from dssync_operator.record import Wanted
from dssync_operator.settings import Settings

MOST_TEMPLATE_BYTES: Final = 200 * 1024
"""The Service keeps the template as an annotation; all of an object may have 256 KiB."""


def oversize(template: Manifest) -> str | None:
    """Say that a template is too large to be kept; None for one that is not."""
    size = len(resources.canonical(template).encode())
    if size <= MOST_TEMPLATE_BYTES:
        return None
    return (
        f"spec.template has {size // 1024} KiB; at most {MOST_TEMPLATE_BYTES // 1024} can be kept "
        "beside the pods: mount large values from a ConfigMap"
    )


class Children:
    """Makes and repairs the children of jobs."""

    def __init__(self, cluster: Cluster, settings: Settings, metrics: Metrics) -> None:
        self._cluster = cluster
        self._settings = settings
        self._metrics = metrics
        self._ensured: dict[str, tuple[str, float]] = {}
        """By uid of the job: the hash that is known to be applied, and when that was verified."""

    async def ensure(self, job: Job, template: Manifest) -> bool:
        """Make the children exist as they should be.

        Returns:
            Whether the token was made, for the first time or anew.

        Raises:
            ForbiddenError: The operator may not make them, or gives no rights to workers.
        """
        if job.worker_rbac is WorkerRbac.NONE and not job.spec.rendezvous.static:
            raise errors.ForbiddenError(
                "this operator gives workers no right on a Lease (workerRbac None): make the job "
                "anew with rendezvous.mode Static"
            )
        wanted = resources.applied(job, template, self._settings.network_policy)
        bare = resources.service(job, template, "")
        hash_ = digest([*wanted, bare])
        service = resources.service(job, template, hash_)
        known, verified_at = self._ensured.get(job.uid, ("", 0.0))
        now = time.monotonic()
        if known == hash_ and now - verified_at < self._settings.resync_seconds:
            return False
        # Without a status they are missing, or were left by a process that ended in the middle;
        # to apply what is there writes nothing.
        found = None if known or not job.status else await self._found(service)
        made = False
        if known or found is None or not _covers(found, _mark_of(service)):
            # Where the last of them is missing, so are the others: no need to ask for each.
            made = await self._repair(job, (*wanted, service), look_first=bool(known or found))
        self._ensured[job.uid] = (hash_, now)
        return made

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a job that is gone."""
        self._ensured.pop(uid, None)

    async def kept_template(self, job: Job, template_hash: str) -> Manifest | None:
        """The template of that hash, if it is the one that the job's Service keeps."""
        service = await self._found(resources.service(job, {}, "")) or {}
        kept = resources.template_of(service)
        return kept if digest(kept) == template_hash else None

    async def write_record(self, job: Job, wanted: Wanted) -> None:
        """Write the operator's part of the Lease, and make the Lease where there is none."""
        lease = resources.lease(job, wanted)
        await self._cluster.apply(path_of(lease), lease)

    async def restore_record(self, job: Job, wanted: Wanted, term: int) -> None:
        """Make a Lease anew that was deleted by hand, with its term, so that no term repeats."""
        lease = {**resources.lease(job, wanted), "spec": {"leaseTransitions": term}}
        await self._cluster.create(collection_of(lease), lease)
        await self.write_record(job, wanted)

    async def _found(self, wanted: Manifest) -> Manifest | None:
        try:
            return await self._cluster.get(path_of(wanted))
        except errors.NotFoundError:
            return None

    async def _repair(self, job: Job, wanted: tuple[Manifest, ...], look_first: bool) -> bool:
        *others, service = wanted
        made, *_ = await asyncio.gather(
            self._make_secret(job), *(self._repair_one(each, look_first) for each in others)
        )
        await self._repair_one(service, look_first)
        return bool(made)

    async def _make_secret(self, job: Job) -> bool:
        """Make the token; the operator may not read Secrets, so it tries and is told."""
        secret = resources.secret(job)
        try:
            await self._cluster.create(collection_of(secret), secret)
        except errors.ExistsError:
            return False
        return True

    async def _repair_one(self, wanted: Manifest, look_first: bool) -> None:
        if look_first and _covers(await self._found(wanted), wanted):
            return
        await self._cluster.apply(path_of(wanted), wanted)


def _mark_of(service: Manifest) -> Manifest:
    """What a Service must show to prove that all children were applied."""
    return {"metadata": {"annotations": child(child(service, "metadata"), "annotations")}}


def _covers(found: object, wanted: object) -> bool:
    """Whether everything that is wanted is found; the server adds fields of its own."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            key in found and _covers(found[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(map(_covers, found, wanted))
        )
    return found == wanted
