"""Where nodes stand, from their labels, for operators that may read nodes."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from dssync import contract
from dssync_operator import errors
from dssync_operator.cluster import Cluster
from dssync_operator.job import Job, Manifest, child, children
from dssync_operator.pod import worker_of
from dssync_operator.policies.nodes import place_of

KEEP_SECONDS: Final = 600.0
"""Labels of a node rarely change; they are read again after this long."""
READS: Final = 16
"""Nodes that are read at the same time; a large job has thousands."""


class Topology:
    """Reads the labels of nodes, each once in a while."""

    def __init__(
        self,
        cluster: Cluster,
        keys: tuple[str, ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to read.

        Args:
            cluster: Where.
            keys: The operator's own keys; none means that it has no right to read nodes.
            clock: Monotonic seconds.
        """
        self._cluster = cluster
        self._keys = keys
        self._clock = clock
        self._labels: dict[str, tuple[float, Manifest]] = {}
        self._swept_at = clock()
        self._reading = asyncio.Semaphore(READS)

    def covers(self, job: Job) -> bool:
        """Whether launchers of a job can know more of their nodes than the names.

        The paths go through the Lease; a variable in the template overrides them.
        """
        lease = bool(self._keys) and not job.spec.rendezvous.static
        return lease or _has_variable(job.spec.template, contract.ENV_TOPOLOGY)

    async def paths(self, keys: tuple[str, ...], names: Iterable[str]) -> dict[str, str]:
        """Path of each node, by the job's keys or else the operator's own."""
        if not self._keys:
            return {}
        self._sweep()
        wanted = sorted(set(names) - {""})
        found = await asyncio.gather(*map(self._labels_of, wanted))
        return {
            name: place_of(labels, keys or self._keys)
            for name, labels in zip(wanted, found, strict=True)
        }

    def _sweep(self) -> None:
        """Forget nodes that nobody has asked for: where many come and go, they would pile up."""
        now = self._clock()
        if now - self._swept_at >= KEEP_SECONDS:
            self._swept_at = now
            kept = self._labels.items()
            self._labels = {name: each for name, each in kept if now - each[0] < KEEP_SECONDS}

    async def _labels_of(self, name: str) -> Manifest:
        read_at, labels = self._labels.get(name, (-KEEP_SECONDS, {}))
        now = self._clock()
        if now - read_at >= KEEP_SECONDS:
            try:
                async with self._reading:
                    node = await self._cluster.get(f"/api/v1/nodes/{name}")
            except (errors.NotFoundError, errors.ForbiddenError):
                return {}
            labels = child(child(node, "metadata"), "labels")
            self._labels[name] = (now, labels)
        return labels


def _has_variable(template: Manifest, name: str) -> bool:
    worker = worker_of(children(child(template, "spec"), "containers"))
    return any(entry.get("name") == name for entry in children(worker, "env"))
