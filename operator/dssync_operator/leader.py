"""Which replica acts: a Lease that one of them holds and renews.

The Lease's version is the lock, so two candidates that saw the same state cannot both win.
Clocks of two machines are never compared: a candidate measures with its own clock for how long
the Lease has not changed. A leader that cannot renew stops itself before anybody may follow it,
and even then nothing breaks: names are deterministic and status writes are versioned.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from dssync_operator import errors
from dssync_operator.cluster import Cluster
from dssync_operator.job import Manifest, child, number, text
from dssync_operator.settings import MARGIN, Settings

SILENT_SECONDS: Final = 30.0
"""A replica whose requests have failed for this long is not ready."""
_log = logging.getLogger(__name__)


class Leader:
    """One candidate. ``acquire``, then ``keep`` until it raises, and ``release`` at the end."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._collection = (
            f"/apis/coordination.k8s.io/v1/namespaces/{settings.lease_namespace}/leases"
        )
        self._path = f"{self._collection}/{settings.lease_name}"
        self._seen_version = ""
        self._seen_at = 0.0
        self._held: Manifest | None = None
        self._renewed_at = 0.0
        self._answered_at: float | None = None
        self._failure = ""

    async def acquire(self) -> None:
        """Return as soon as this replica holds the Lease."""
        while True:
            try:
                held = await self._try()
                self._answered()
                if held:
                    return
            except errors.UnavailableError as error:
                self._failed(error)
            await self._sleep(self._settings.poll_seconds)

    def unhealthy(self) -> str | None:
        """Say that this replica could not lead, since its requests fail; None while they work."""
        said = f"Lease {self._path} cannot be read and written: {self._failure or 'no answer yet'}"
        if self._answered_at is None:
            return said
        own = 2 * max(self._settings.poll_seconds, self._settings.renew_seconds)
        silent = self._clock() - self._answered_at > max(SILENT_SECONDS, own)
        return said if silent else None

    def _answered(self) -> None:
        self._answered_at = self._clock()
        if self._failure:
            _log.info("Lease %s can be read and written again", self._path)
        self._failure = ""

    def _failed(self, error: Exception) -> None:
        """Log the first failure; the others of a row say the same."""
        if not self._failure:
            _log.warning("Lease %s cannot be read and written: %s", self._path, error)
        self._failure = str(error) or type(error).__name__

    async def keep(self) -> None:
        """Renew for as long as it works.

        Raises:
            LeadershipLostError: Somebody else holds the Lease, or it could not be renewed in time.
        """
        while True:
            await self._sleep(self._settings.renew_seconds)
            self.guard()
            try:
                async with asyncio.timeout(self._settings.renew_seconds):
                    await self._renew()
                self._answered()
            except (errors.UnavailableError, TimeoutError) as error:
                self._failed(error)  # the guard ends this when it has lasted too long

    def guard(self) -> None:
        """Allow a write of the operator.

        Raises:
            LeadershipLostError: The last renewal is too long ago to be sure.
        """
        silent = self._clock() - self._renewed_at
        if self._held is None or silent > MARGIN * self._settings.lease_seconds:
            raise errors.LeadershipLostError(
                f"Lease {self._path} was not renewed for {silent:.1f} s; "
                f"another replica may lead after {self._settings.lease_seconds:g} s"
            )

    async def release(self) -> None:
        """Let go at once, so that a standby need not wait for the Lease to run out."""
        if self._held is None:
            return
        held, self._held = self._held, None
        try:
            async with asyncio.timeout(1.0):
                await self._write(held, "")
        except (errors.ApiError, TimeoutError):
            return  # it runs out by itself
        finally:
            self._held = None

    async def _try(self) -> bool:
        """Take the Lease if nobody holds it.

        Raises:
            UnavailableError: It could not be read, made or written.
        """
        try:
            lease = await self._cluster.get(self._path)
        except errors.NotFoundError:
            return await self._make()
        holder = text(child(lease, "spec"), "holderIdentity")
        version = text(child(lease, "metadata"), "resourceVersion")
        if version != self._seen_version:
            self._seen_version, self._seen_at = version, self._clock()
        expired = self._clock() - self._seen_at >= self._settings.lease_seconds
        if holder not in ("", self._settings.identity) and not expired:
            return False
        try:
            await self._write(lease, self._settings.identity)
        except errors.ConflictError:
            return False  # somebody else was faster
        return True

    async def _make(self) -> bool:
        metadata = {
            "name": self._settings.lease_name,
            "namespace": self._settings.lease_namespace,
        }
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        try:
            await self._cluster.create(self._collection, {**lease, "spec": {}})
        except errors.ExistsError:
            return False
        return await self._try()

    async def _renew(self) -> None:
        """Write; after a conflict go on if the write that made it was our own or an outsider's."""
        try:
            return await self._write(self._held or {}, self._settings.identity)
        except errors.ConflictError:
            pass
        lease = await self._cluster.get(self._path)
        if text(child(lease, "spec"), "holderIdentity") != self._settings.identity:
            raise errors.LeadershipLostError(f"Lease {self._path} has another holder now")
        self._held = lease

    async def _write(self, lease: Manifest, holder: str) -> None:
        before = child(lease, "spec")
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        changed = text(before, "holderIdentity") != holder
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(self._settings.lease_seconds)),
            "renewTime": stamp,
            "acquireTime": stamp if changed else before.get("acquireTime", stamp),
            "leaseTransitions": number(before, "leaseTransitions", 0) + (changed and bool(holder)),
        }
        sent_at = self._clock()
        self._held = await self._cluster.replace(self._path, {**lease, "spec": spec})
        # Counted from before the request: the server may have written it any time since.
        self._renewed_at = sent_at
