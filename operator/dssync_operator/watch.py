"""Watches that only say which job to look at again.

Nothing is kept of what they bring but the key of a job, so a missed event can delay a look and
never falsify one. Objects come trimmed to their metadata, which is what makes ten thousand pods
cheap. kopf's own machinery costs a millisecond an object and does not report what vanished while
a watch was broken; here every gap is answered by looking at all jobs.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from dssync_operator import errors
from dssync_operator.cluster import Cluster
from dssync_operator.echoes import Echoes
from dssync_operator.job import child, text
from dssync_operator.metrics import Metrics
from dssync_operator.queue import Key
from dssync_operator.resources import POD_SELECTOR

SERVER_SECONDS: Final = 300
RETRY_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


class Watcher:
    """Follows one collection of children of jobs."""

    def __init__(
        self,
        cluster: Cluster,
        path: str,
        on_key: Callable[[Key], None],
        on_gap: Callable[[], None],
        metrics: Metrics,
        echoes: Echoes,
    ) -> None:
        """Prepare to follow a collection.

        Args:
            cluster: Where.
            path: Of the collection, such as ``/api/v1/pods``.
            on_key: Called with the job of each object that changed.
            on_gap: Called when changes may have been missed, first at the start.
            metrics: Counts restarts and shows the age.
            echoes: Knows which events tell nothing new.
        """
        self._cluster = cluster
        self._path = path
        self._on_key = on_key
        self._on_gap = on_gap
        self._metrics = metrics
        self._echoes = echoes
        self._version = ""
        self._heard_at = asyncio.get_running_loop().time()

    @property
    def path(self) -> str:
        """The collection that is followed."""
        return self._path

    def age_seconds(self) -> float:
        """Time since the last event or bookmark, or the last attempt that the server answered."""
        age = asyncio.get_running_loop().time() - self._heard_at
        self._metrics.watch_age_seconds.labels(self._path).set(age)
        return age

    async def run(self) -> None:
        """Follow the collection for ever."""
        while True:
            try:
                if not self._version:
                    await self._begin()
                await self._follow()
            except errors.GoneError:
                self._version = ""
            except errors.ApiError as error:
                # The server may be back without what it had: to a watch from a version of its
                # lost future it says nothing at all.
                self._version = ""
                _log.warning("watch of %s is started anew: %s", self._path, error)
                await asyncio.sleep(RETRY_SECONDS)
            self._metrics.watch_restarts.labels(self._path).inc()

    async def _begin(self) -> None:
        """Learn the present version; what happened before it is covered by ``on_gap``."""
        page = await self._cluster.get(f"{self._path}?limit=1")
        self._version = text(child(page, "metadata"), "resourceVersion")
        self._heard()
        self._echoes.forget()
        self._on_gap()

    async def _follow(self) -> None:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(SERVER_SECONDS),
            "labelSelector": POD_SELECTOR,
        }
        async for event in self._cluster.watch(self._path, query):
            self._heard()
            found = event.object.metadata
            self._version = found.resource_version
            if found.labels is None or not found.labels.job_name:
                continue
            if not self._echoes.hears(event.type, found.namespace, found.name):
                self._on_key((found.namespace, found.labels.job_name))

    def _heard(self) -> None:
        self._heard_at = asyncio.get_running_loop().time()
