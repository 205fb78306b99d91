"""The acting replica: watches feed the queue, workers empty it, a resync misses nobody."""

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from typing import NoReturn

import kopf

from dssync_operator import errors, handlers
from dssync_operator.cluster import Cluster, Credentials
from dssync_operator.echoes import Echoes
from dssync_operator.job import child, number, text
from dssync_operator.metrics import Metrics
from dssync_operator.owed import Owed
from dssync_operator.paths import collection, jobs_path
from dssync_operator.queue import Key, KeyedQueue
from dssync_operator.reconcile import Reconciler
from dssync_operator.settings import Settings
from dssync_operator.watch import Watcher

_log = logging.getLogger(__name__)


class Operation:
    """Everything that runs while this replica leads."""

    def __init__(
        self, cluster: Cluster, credentials: Credentials, settings: Settings, metrics: Metrics
    ) -> None:
        loop = asyncio.get_running_loop()
        self._cluster = cluster
        self._credentials = credentials
        self._settings = settings
        self._metrics = metrics
        echoes = Echoes()
        self._reconciler = Reconciler(cluster, settings, metrics, echoes=echoes)
        self._queue = KeyedQueue(
            loop.time, loop.call_later, spacing_seconds=settings.coalesce_seconds
        )
        self._resync_now = asyncio.Event()
        self._owed = Owed(loop.time)
        self._namespaces: tuple[str | None, ...] = settings.namespaces or (None,)
        self.watchers = tuple(
            Watcher(
                cluster,
                collection(kind, namespace),
                self._queue.add,
                self._resync_now.set,
                metrics,
                echoes,
            )
            for kind in ("Pod", "Lease")
            for namespace in self._namespaces
        )

    async def run(self, on_signals: Callable[[], None]) -> NoReturn:
        """Operate until cancelled, or until a part fails that nothing can go on without.

        Args:
            on_signals: Installs the process's signal handlers, once kopf has put its own there.
        """
        jobs_watch = await kopf.spawn_tasks(
            registry=handlers.register(self._credentials, self._queue.add, self._owed),
            settings=handlers.settings(),
            clusterwide=not self._settings.namespaces,
            namespaces=self._settings.namespaces,
            standalone=True,
            # Else kopf asks for the user's name, and users of containers have none.
            identity=self._settings.identity,  # type: ignore[arg-type]
        )
        on_signals()
        async with asyncio.TaskGroup() as group:
            group.create_task(_run_kopf(jobs_watch))
            group.create_task(self._resync())
            for watcher in self.watchers:
                group.create_task(watcher.run())
            for _ in range(self._settings.workers):
                group.create_task(self._work())
        raise AssertionError("unreachable: no task of the group ends by itself")

    def unhealthy(self) -> str | None:
        """Say what is wrong with a part that should move and does not; None when all is well."""
        job, owed_seconds = self._owed.oldest() or (("", ""), 0.0)
        self._metrics.watch_age_seconds.labels(jobs_path(None)).set(owed_seconds)
        if owed_seconds > self._settings.stale_seconds:
            return f"watch of jobs has not told of {'/'.join(job)} for {owed_seconds:.0f} s"
        for watcher in self.watchers:
            age = watcher.age_seconds()
            if age > self._settings.stale_seconds:
                return f"watch of {watcher.path} has brought nothing for {age:.0f} s"
        return None

    async def _work(self) -> NoReturn:
        while True:
            key, waited = await self._queue.get()
            self._metrics.queue_wait_seconds.observe(waited)
            self._metrics.queue_depth.set(len(self._queue))
            await self._look(key)

    async def _look(self, key: Key) -> None:
        try:
            with self._metrics.reconcile_seconds.time():
                wait = await self._reconciler.look(key)
        except errors.ApiError as error:
            self._metrics.reconcile_errors.labels(type(error).__name__).inc()
            delay = self._queue.retry(key, error.retry_after_seconds)
            _log.info("job %s/%s is looked at again in %.1f s: %s", *key, delay, error)
        except errors.LeadershipLostError:
            raise
        except Exception:
            # A defect in one job's look must not stop the others'.
            self._metrics.reconcile_errors.labels("defect").inc()
            delay = self._queue.retry(key)
            _log.exception("job %s/%s: defect, tried again in %.1f s", *key, delay)
        else:
            self._queue.done(key)
            if wait is not None:
                self._queue.add_after(key, wait)

    async def _resync(self) -> NoReturn:
        """Ask for a look at every job: after each gap of a watch, and every so often."""
        while True:
            spread = 0.0
            try:
                async with asyncio.timeout(self._settings.resync_seconds * random.uniform(0.8, 1)):
                    await self._resync_now.wait()
            except TimeoutError:
                spread = self._settings.resync_seconds * 0.2
            self._resync_now.clear()
            try:
                await self._add_all(spread)
            except errors.ApiError as error:
                _log.warning("resync is repeated: %s", error)
                self._resync_now.set()
                await asyncio.sleep(1.0)

    async def _add_all(self, spread_seconds: float) -> None:
        generations: dict[Key, int] = {}
        for namespace in self._namespaces:
            pages = self._cluster.pages(jobs_path(namespace), metadata_only=True)
            async for page, _ in pages:
                for job in page:
                    metadata = child(job, "metadata")
                    key = (text(metadata, "namespace"), text(metadata, "name"))
                    generations[key] = number(metadata, "generation", 0)
                    if spread_seconds:
                        self._queue.add_after(key, random.uniform(0.0, spread_seconds))
                    else:
                        self._queue.add(key)
        self._owed.listed(generations)
        # Gone, or made since: nothing else tells of the end of a job that has no children.
        for key in self._reconciler.known() - set(generations):
            self._queue.add(key)


async def _run_kopf(tasks: Collection[asyncio.Task[None]]) -> NoReturn:
    """Run kopf's own tasks. Its ``run_tasks`` would end with all tasks of the loop, ours too.

    Raises:
        OperatorError: kopf has ended by itself.
    """
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        reasons = [task.exception() for task in done if not task.cancelled()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise errors.OperatorError(f"the watch of jobs has ended by itself: {reasons}")
